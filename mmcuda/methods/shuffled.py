"""The control: clinical pretraining whose labels say nothing about the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmcuda.data.split import Indices
from mmcuda.methods.base import Method, register_method
from mmcuda.methods.clinical import Clinical
from mmcuda.train.seeding import derive_seed


@register_method
@dataclass(frozen=True)
class Shuffled(Clinical):
    """Clinical pretraining with the labels permuted among the training images."""

    name = "shuffled"
    summary = "the control: clinical pretraining with the labels shuffled among the images"
    color = "#cc79a7"
    marker = "v"
    role = "control"

    @classmethod
    def shares_options_with(cls) -> type[Method]:
        """Return Clinical: a control differs from what it controls in one thing only."""
        return Clinical

    def label_rows(self, train: Indices, seed: int) -> Indices:
        """Return the training images permuted.

        Whole rows move, so that the labels' distribution and their correlation stay and their relation to the image
        goes.
        """
        return np.random.default_rng(derive_seed(seed, "shuffle")).permutation(train)
