"""How far probabilities can be taken at their word."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmcuda.evaluate.metrics import Floats

BINS = 10  # of equal width


def calibration_metrics(probabilities: Floats, labels: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return the errors of probabilities as such, NaN without any image.

    Args:
        probabilities: [n].
        labels: [n] in {0, 1}.

    Returns:
        ece: expected calibration error, the mean distance of the observed frequency from the mean probability over
            ``BINS`` bins, weighted by their images (Guo et al. 2017). It is above 0 by chance where images are few.
        brier: mean squared distance of probability and label.
    """
    if len(labels) == 0:
        return {"ece": np.nan, "brier": np.nan}
    import torch
    from torchmetrics.functional.classification import binary_calibration_error  # seconds to import

    error = binary_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels).long(), n_bins=BINS, validate_args=False
    )
    return {"ece": float(error), "brier": float(np.mean((probabilities - labels) ** 2))}
