"""The arms of a study: what each is, and which encoder it reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmcuda.errors import UserError, did_you_mean

ONE_LABEL = "clinical:"
EACH = "clinical:each"

ARMS = {  # name -> meaning
    "random": "an untrained encoder",
    "imagenet": "the given weights, of natural images as a rule, without any pretraining here",
    "simclr": "contrastive pretraining without labels: two views of one image are the positives",
    "supervised": "no pretraining: encoder and classifier learn from the labelled images alone, from scratch",
    "clinical-input": "simclr's encoder, with the clinical values beside its features at the classifier: it needs "
    "the values of every new image, too",
    "shuffled": "the control: clinical pretraining with the labels shuffled among the images",
    "clinical": "contrastive pretraining whose positives share a clinical label, all labels together",
}
NEED_CLINICAL = ("clinical-input", "shuffled", "clinical")


def meaning(arm: str) -> str:
    """Say what an arm is."""
    return ARMS.get(arm) or f"clinical pretraining with the label {arm.removeprefix(ONE_LABEL)} alone"


def expand(arms: Iterable[str], clinical: Sequence[str], imagenet: bool) -> list[str]:
    """Return the arms for a cohort with the clinical labels ``clinical``, in the order in which they are shown.

    Every label's arm takes the place of ``clinical:each``; with ``imagenet`` that arm is among them.

    Raises:
        UserError: if an arm needs a clinical label that there is not.
    """
    found: list[str] = []
    for arm in arms:
        found += [f"{ONE_LABEL}{name}" for name in clinical] if arm == EACH else [arm]
    if imagenet:
        found.append("imagenet")
    for arm in found:
        label = arm.removeprefix(ONE_LABEL)
        if arm.startswith(ONE_LABEL) and label not in clinical:
            known = ", ".join(clinical) or "none"
            raise UserError(f"the arm {arm} must name a clinical label of {known}{did_you_mean(label, clinical)}")
        if arm in NEED_CLINICAL and not clinical:
            raise UserError(f"the arm {arm} needs clinical labels: name some with --data.clinical, or leave it out")
    order = [*list(ARMS)[:-1], *(f"{ONE_LABEL}{name}" for name in clinical), "clinical"]
    return sorted(set(found), key=order.index)
