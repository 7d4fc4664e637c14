"""From images to the eyes, lesions or patients they belong to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmcuda.data.cohort import Cohort
from mmcuda.evaluate.metrics import Floats

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


def group_labels(targets: npt.NDArray[np.float32], groups: Groups) -> npt.NDArray[np.float32]:
    """Return the labels [G, T] of groups of images: the highest of their images' labels, NaN where none has one.

    Args:
        targets: [n, T] in {0, 1, NaN}.
        groups: [n] the group of every image; the G groups come in ascending order.
    """
    labels: npt.NDArray[np.float32] = pd.DataFrame(targets).groupby(groups).max().to_numpy()
    return labels


def group_probabilities(probabilities: Floats, targets: npt.NDArray[np.float32], groups: Groups) -> Floats:
    """Return the probabilities [G, T] of groups of images: the mean over their images with a label, target by target.

    Probabilities and ``group_labels`` then speak of the same images.

    Args:
        probabilities: [n, T], NaN where undefined.
        targets: [n, T] in {0, 1, NaN}.
        groups: [n] the group of every image; the G groups come in ascending order.
    """
    counted = np.where(np.isfinite(targets), probabilities, np.nan)
    means: Floats = pd.DataFrame(counted).groupby(groups).mean().to_numpy()
    return means
