"""Readouts: how an encoder's worth for the targets is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Readout:
    """What an arm makes of an encoder and the labelled images."""

    name: str  # METHOD+name on the command line
    summary: str  # behind the method's summary
    trains: Literal["supervised", "finetune"] | None = None  # all weights, with the options of this field of a study
    adds_values: bool = False  # the clinical values stand beside the features
    from_scratch: bool = False  # the method's encoder is not read: all begins with random weights
    color: str | None = None  # of its curves; the method's by default
    marker: str | None = None
    line: str = "-"


PROBE = Readout("probe", "a linear classifier on the frozen encoder")
SCRATCH = Readout(
    name="scratch",
    summary="no pretraining: encoder and classifier learn from the labelled images alone, from scratch",
    trains="supervised",
    from_scratch=True,
    color="#009e73",
    marker="P",
)
VALUES = Readout(
    name="values",
    summary="its encoder, with the clinical values beside its features at the classifier: it needs the values of every "
    "new image as well",
    adds_values=True,
    color="#1c1d1f",
    marker="X",
)
FINETUNE = Readout(
    name="finetune",
    summary="then all weights are fine-tuned with the labelled images",
    trains="finetune",
    marker="*",
    line="--",
)
READOUTS = {readout.name: readout for readout in (PROBE, SCRATCH, VALUES, FINETUNE)}  # in the order they are shown
