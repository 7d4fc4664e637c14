import json

import numpy as np
import pytest

from mmcuda.errors import UserError
from mmcuda.files import write_atomically
from mmcuda.train.folder import RunFolder, new_file, write_arrays, write_json


def test_a_folder_with_files_is_continued_only_on_request(tmp_path):
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(UserError, match=r"is not empty\. Continue that run with --resume, or choose another"):
        RunFolder(tmp_path).open(resume=False)
    RunFolder(tmp_path).open(resume=True)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot write to /proc/run: no such file or directory\. Choose another"):
        RunFolder(tmp_path.__class__("/proc/run")).open(resume=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out must be a folder, got the file"):
        RunFolder(tmp_path / "file").open(resume=False)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"auroc": 0.5})

    def fail(file):
        file.write(b'{"auroc"')
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"auroc": 0.5}


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "metrics.json", float("nan"))
    assert not (tmp_path / "metrics.json").exists()


def test_arrays_keep_names_with_slashes(tmp_path):
    write_arrays(tmp_path / "a.npz", {"clinical/0.05/seed0": np.arange(3)})
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["clinical/0.05/seed0"], np.arange(3))


def test_a_new_file_needs_a_known_suffix_an_existing_folder_and_a_free_name(tmp_path):
    (tmp_path / "old.csv").write_text("")
    for name, message in {"x.txt": "must end in", "no/x.csv": "existing folder", "old.csv": "exists"}.items():
        with pytest.raises(UserError, match=message):
            new_file(tmp_path / name, (".csv", ".npz"))
    assert new_file(tmp_path / "x.csv", (".csv", ".npz")) == tmp_path / "x.csv"
