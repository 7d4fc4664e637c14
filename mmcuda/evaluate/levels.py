"""From images to the eyes, lesions or patients they belong to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmcuda.data.cohort import Cohort
from mmcuda.evaluate.metrics import Floats
from mmcuda.targets import Targets

Groups = npt.NDArray[np.int64]


def levels(cohort: Cohort) -> dict[str, Groups]:
    """Return the levels above the image, each as the number [N] of every image's group.

    "bag" is left out where every bag is a whole patient, and either level where each of its groups is one image.
    """
    patients, bags = (np.unique(names, return_inverse=True)[1] for names in (cohort.patients, cohort.bags))
    sizes = {"bag": bags.max() + 1, "patient": patients.max() + 1}
    found = {"bag": bags, "patient": patients}
    if sizes["bag"] == sizes["patient"]:
        del found["bag"]
    return {level: groups for level, groups in found.items() if sizes[level] < len(groups)}


def group_labels(targets: Targets, truth: npt.NDArray[np.float32], groups: Groups) -> npt.NDArray[np.float32]:
    """Return the labels [G, T] of groups of images, as ``Target.of_group`` makes them; NaN where no image has one.

    Args:
        targets: the T targets.
        truth: [n, T], NaN = no label.
        groups: [n] the group of every image; the G groups come in ascending order.
    """
    columns = [
        target.of_group(pd.DataFrame(truth[:, [t]]).groupby(groups)).to_numpy()
        for t, target in enumerate(targets.values())
    ]
    return np.concatenate(columns, axis=1)


def group_predictions(targets: Targets, predictions: Floats, truth: npt.NDArray[np.float32], groups: Groups) -> Floats:
    """Return the predictions [G, outputs] of groups of images: the mean over their images with a label of the target.

    Predictions and ``group_labels`` then speak of the same images.

    Args:
        targets: the T targets.
        predictions: [n, outputs], NaN where undefined.
        truth: [n, T], NaN = no label.
        groups: [n] the group of every image; the G groups come in ascending order.
    """
    target_of_column = np.repeat(np.arange(len(targets)), [target.outputs for target in targets.values()])
    counted = np.where(np.isfinite(truth)[:, target_of_column], predictions, np.nan)
    means: Floats = pd.DataFrame(counted).groupby(groups).mean().to_numpy()
    return means
