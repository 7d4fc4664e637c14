"""The cache of decoded images: complete, current and undamaged, whatever happened to it."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from tables import config, patients_table, write_images, write_table

from mmcuda.data import load_table
from mmcuda.data.image_cache import ImageCache
from mmcuda.errors import UserError


@pytest.fixture
def table(tmp_path):
    return load_table(config(write_table(tmp_path)))


def cache(table, folder):
    return ImageCache(table, 16, folder / "cache")


def expected(table):
    return np.stack([table.images.read(row, 16).pixels for row in range(len(table))])


def test_the_images_are_decoded_once(table, tmp_path):
    first, again = cache(table, tmp_path), cache(table, tmp_path)
    images, facts = first.load()
    np.testing.assert_array_equal(images, expected(table))
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert facts.widths.tolist() == [20] * 24
    assert facts.heights.tolist() == [24] * 24
    assert len(set(facts.digests.tolist())) == 24
    assert first.decoded == 24
    np.testing.assert_array_equal(again.load()[0], images)
    assert again.decoded == 0


def test_a_changed_image_is_decoded_again_and_who_has_the_old_ones_keeps_them(table, tmp_path):
    old, _ = cache(table, tmp_path).load()
    before = old.copy()
    write_images(tmp_path, ["images/005.png"], seed=9)
    os.utime(tmp_path / "images/005.png", ns=(1, 1))
    changed = cache(table, tmp_path)
    images, _ = changed.load()
    assert changed.decoded == 1
    assert (images[5] != before[5]).any()
    np.testing.assert_array_equal(images, expected(table))
    np.testing.assert_array_equal(old, before)


@pytest.mark.parametrize("where", [-1, -16 * 16 * 20])
def test_a_damaged_image_is_decoded_again(table, tmp_path, where):
    first = cache(table, tmp_path)
    first.load()
    with (first.folder / "images.npy").open("r+b") as file:
        file.seek(where, os.SEEK_END)
        byte = file.read(1)
        file.seek(where, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    again = cache(table, tmp_path)
    np.testing.assert_array_equal(again.load()[0], expected(table))
    assert again.decoded == 1


@pytest.mark.parametrize("name", ["images.npy", "records.npy"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", None])
def test_a_damaged_file_is_rebuilt(table, tmp_path, name, content):
    first = cache(table, tmp_path)
    first.load()
    path = first.folder / name
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    np.testing.assert_array_equal(cache(table, tmp_path).load()[0], expected(table))


def test_another_table_size_or_channel_has_a_cache_of_its_own(table, tmp_path):
    folders = {
        ImageCache(table, 16, tmp_path).folder,
        ImageCache(table, 8, tmp_path).folder,
        ImageCache(table.take(np.arange(3)), 16, tmp_path).folder,
        ImageCache(load_table(config(tmp_path / "cohort.csv", channels=3)), 16, tmp_path).folder,
    }
    assert len(folders) == 4


def test_rows_that_share_an_image_share_its_decoding(tmp_path):
    rows = patients_table()
    rows["image"] = [f"images/{row // 4}.png" for row in range(24)]
    shared = load_table(config(write_table(tmp_path, rows)))
    first = cache(shared, tmp_path)
    images, _ = first.load()
    assert first.decoded == 6
    np.testing.assert_array_equal(images, expected(shared))


def test_all_images_that_cannot_be_read_are_named_and_the_others_kept(table, tmp_path):
    (tmp_path / "images/003.png").unlink()
    (tmp_path / "images/007.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        cache(table, tmp_path).load()
    assert str(error.value) == "images/003.png: missing (row 5); images/007.png: empty (0 bytes) (row 9)"
    write_images(tmp_path, ["images/003.png", "images/007.png"])
    second = cache(table, tmp_path)
    np.testing.assert_array_equal(second.load()[0], expected(table))
    assert second.decoded == 2


BUILD = """
import sys, time
from pathlib import Path
import mmcuda.data.decode
from mmcuda.data import DataConfig, load_table
from mmcuda.data.image_cache import ImageCache
from mmcuda.data.image_files import FileImages
read = FileImages.read
FileImages.read = lambda images, row, size: time.sleep(600) if row == 200 else read(images, row, size)
mmcuda.data.decode.BLOCK = 4
config = DataConfig(source="table", file=Path(sys.argv[1]), image="image", group="patient")
ImageCache(load_table(config), 16, Path(sys.argv[2])).load()
"""


def test_killed_while_it_decodes_it_goes_on_from_there(tmp_path):
    """At one image the process stops, so that it can be killed there."""
    path = write_table(tmp_path, patients_table(240))
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(path), str(tmp_path / "cache")])
    (cached,) = wait_for(lambda: [*tmp_path.glob("cache/*/records.part")])
    wait_for(lambda: np.load(cached)["written"].sum() == 200)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not cached.with_name("records.npy").exists()

    table = load_table(config(path))
    resumed = cache(table, tmp_path)
    images, _ = resumed.load()
    assert resumed.decoded == 40
    np.testing.assert_array_equal(images, expected(table))
    assert {entry.name for entry in resumed.folder.iterdir()} == {"images.npy", "records.npy", "lock"}


def wait_for(condition, seconds=60):
    """Return what ``condition`` returns as soon as that is true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return result


def test_of_two_at_once_one_decodes(table, tmp_path):
    both = [cache(table, tmp_path) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for images, _ in pool.map(ImageCache.load, both):
            np.testing.assert_array_equal(images, expected(table))
    assert sorted(one.decoded for one in both) == [0, 24]


def test_a_complete_cache_is_only_read(table, tmp_path):
    first = cache(table, tmp_path)
    first.load()
    written = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    cache(table, tmp_path).load()
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == written


def test_a_cache_that_would_not_fit_is_refused_at_once(table, tmp_path):
    huge = ImageCache(table, 2_000_000, tmp_path / "cache")
    with pytest.raises(UserError, match=r"^the cache needs 96000\.0 GB at .*, more than is free there$"):
        huge.load()


def test_a_blank_image_is_known_as_such(tmp_path):
    path = write_table(tmp_path)
    Image.new("L", (20, 24), 200).save(tmp_path / "images/002.png")
    _, facts = cache(load_table(config(path)), tmp_path).load()
    assert np.flatnonzero(facts.digests == b"blank").tolist() == [2]
