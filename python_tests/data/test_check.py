"""Every fault that is planted in a cohort is found, and named by file, row and column."""

import json
import time

import numpy as np
import pytest
from PIL import Image
from tables import config, patients_table, write_table

from mmcuda.cli import main
from mmcuda.data import DataConfig, Problem, load_table
from mmcuda.data.check import check_cohort, load_checked
from mmcuda.errors import UserError

CLINICAL = {"bcva": "equal", "cst": {"within": 25}, "stage": "equal"}


def lines(path, batch_size=8, **options):
    """Check the cohort in the table at ``path``; return its problems as the screen shows them."""
    check = check_cohort(config(path, clinical=CLINICAL, **options), batch_size)
    return [f"{problem.severity} {problem}" for problem in check.problems]


def errors(path, **options):
    return [line for line in lines(path, **options) if line.startswith("error")]


@pytest.fixture
def path(tmp_path):
    """A cohort of six patients with nothing wrong."""
    rows = patients_table()
    rows["split"] = ["test" if row >= 16 else "train" for row in range(24)]
    rows["fluid"] = [row % 2 for row in range(24)]
    rows["bcva"] = [30 + row % 3 for row in range(24)]
    rows["cst"] = [300 + 100 * (row % 2) for row in range(24)]
    return write_table(tmp_path, rows)


def plant(path, row, column, value):
    """Write ``value`` into a cell; ``row`` counts from 0."""
    text = path.read_text().splitlines()
    cells = text[row + 1].split(",")
    cells[text[0].split(",").index(column)] = value
    text[row + 1] = ",".join(cells)
    path.write_text("\n".join(text) + "\n")


def test_nothing_is_wrong_with_a_good_cohort(path):
    assert lines(path, split="split") == []


def test_images_that_cannot_be_read(path, tmp_path):
    images = tmp_path / "images"
    (images / "000.png").unlink()
    whole = (images / "001.png").read_bytes()
    (images / "001.png").write_bytes(whole[: len(whole) // 2])
    (images / "002.png").write_bytes(b"")
    (images / "003.png").write_text("no picture")
    (images / "004.png").unlink()
    (images / "004.png").symlink_to("004.png")
    assert errors(path) == [
        "error images/000.png: missing (row 2)",
        "error images/001.png: truncated (row 3)",
        "error images/002.png: empty (0 bytes) (row 4)",
        "error images/003.png: not an image of a known format (row 5)",
        "error images/004.png: a loop of symbolic links (row 6)",
    ]


def test_cells_that_are_no_numbers_and_no_targets(path):
    plant(path, 3, "cst", '"2;31"')
    plant(path, 4, "cst", "inf")
    plant(path, 5, "bcva", "20/40")
    plant(path, 6, "fluid", "2")
    found = errors(path)
    for place in ("row 5 column cst", "row 6 column cst", "row 7 column bcva", "row 8 column fluid"):
        assert sum(f"error cohort.csv {place}: " in line for line in found) == 1, place
    assert len(found) == 4


def test_a_patient_on_two_sides(path):
    plant(path, 15, "split", "test")
    assert errors(path, split="split") == ["error patient 0003 is in train and in test"]


def test_the_same_bytes_on_two_sides(path, tmp_path):
    (tmp_path / "images/020.png").write_bytes((tmp_path / "images/004.png").read_bytes())
    assert errors(path, split="split") == [
        "error images/004.png: the same image as images/020.png, but one is in train (row 6), the other in "
        "test (row 22)"
    ]


def test_the_same_image_in_another_format_on_two_sides(path, tmp_path):
    Image.open(tmp_path / "images/004.png").save(tmp_path / "images/copy.tif")
    plant(path, 20, "image", "images/copy.tif")
    assert len(errors(path, split="split")) == 1


def test_copies_on_one_side_are_warnings(path, tmp_path):
    images = tmp_path / "images"
    (images / "005.png").write_bytes((images / "004.png").read_bytes())  # of one patient
    (images / "009.png").write_bytes((images / "001.png").read_bytes())  # of two
    for name in ("012.png", "020.png"):
        Image.new("L", (20, 24)).save(images / name)
    assert lines(path, split="split") == [
        "warning images/001.png: of patient 0000 (row 3), the same image as images/009.png, of patient 0002 (row 11)",
        "warning images of one patient that are the same: images/004.png and images/005.png",
        "warning images/012.png: blank, every pixel is the same (row 14), and so are 1 more",
    ]


def test_targets_of_one_class(path):
    for row in range(16):
        plant(path, row, "fluid", "1")
    assert lines(path, split="split") == ["warning target fluid: no negative in train; it cannot be learned"]
    for row in range(16):
        plant(path, row, "fluid", str(row % 2))
    for row in range(16, 24):
        plant(path, row, "fluid", "")
    assert lines(path, split="split") == ["warning target fluid: no label in test; it will be left out of the mean"]


def test_missing_cells_are_counted(path):
    for row in range(6):
        plant(path, row, "cst", "")
    summary = check_cohort(config(path, clinical=CLINICAL, subgroups=("sex",)), 8).summary
    assert summary["missing_cells"] == {"bcva": 0, "cst": 6 / 24, "stage": 0, "fluid": 0, "sex": 0}
    assert summary["clinical"]["cst"]["missing"] == 6 / 24


def test_a_clinical_label_with_almost_no_positives_gets_proposals_that_hold(tmp_path):
    rng = np.random.default_rng(0)
    rows = patients_table(800)
    rows["cst"] = np.clip(rng.normal(320, 95, 800), 151, 723).round(1)
    rows["fluid"] = rng.integers(0, 2, 800)
    path = write_table(tmp_path, rows, with_images=False)

    def check(rule):
        return check_cohort(config(path, clinical={"cst": rule}), 128)

    def positives(rule):
        return check(rule).summary["clinical"]["cst"]["positives_per_batch"]

    (warning,) = [problem for problem in check("equal").problems if problem.severity == "warning"]
    words = (
        f"{positives('equal'):.2g} positives per batch of 128 by equality; try within: 20 "
        f"({positives({'within': 20}):.1f}) or bins: 8 ({positives({'bins': 8}):.1f})"
    )
    assert warning == Problem("warning", "cst", words)
    assert positives("equal") < 1 < 10 < positives({"within": 20})
    assert not [problem for problem in check({"within": 20}).problems if problem.severity == "warning"]


def test_ids_with_almost_no_positives_get_a_larger_batch_proposed(tmp_path):
    rows = patients_table(240)
    rows["eye"] = np.arange(240) // 2
    path = write_table(tmp_path, rows, with_images=False)
    problems = check_cohort(config(path, clinical={"eye": "equal"}), 64).problems
    (warning,) = [problem for problem in problems if problem.where == "eye"]
    assert warning.message == (
        "0.38 positives per batch of 64 by equality; try --pretrain.batch_size 168 (1.0) or the sampler class_aware"
    )


def test_training_stops_at_the_first_part_with_errors(path, tmp_path):
    (tmp_path / "images/000.png").unlink()
    plant(path, 5, "bcva", "20/40")
    with pytest.raises(UserError, match=r'^cohort\.csv row 7 column bcva: "20/40"') as error:
        load_checked(config(path, clinical=CLINICAL))
    assert "000.png" not in str(error.value)
    assert not (tmp_path / "cache").exists()
    plant(path, 5, "bcva", "30")
    with pytest.raises(UserError, match=r"^images/000\.png: missing \(row 2\)$"):
        load_checked(config(path, clinical=CLINICAL))
    (tmp_path / "images/000.png").write_bytes((tmp_path / "images/020.png").read_bytes())
    with pytest.raises(UserError, match=r"^images/000\.png: the same image as images/020\.png"):
        load_checked(config(path, clinical=CLINICAL, split="split"))


def test_the_command_prints_errors_first_and_writes_both_reports(path, tmp_path, capsys):
    (tmp_path / "images/000.png").unlink()
    plant(path, 5, "bcva", "20/40")
    for row in range(16):
        plant(path, row, "fluid", "1")
    options = ["--data", "table", "--data.file", str(path), "--data.image", "image", "--data.group", "patient"]
    options += ["--data.clinical", "{bcva: equal}", "--data.targets", "[fluid]", "--data.split", "split"]
    out = tmp_path / "report"
    assert main(["data", "check", *options, "--pretrain.batch_size", "8", "--out", str(out)]) == 2
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "2 errors, 1 warning"
    assert [line.split()[0] for line in shown[1:4]] == ["error", "error", "warning"]
    assert "error    images/000.png: missing (row 2)" in shown
    assert "images    23 of 20 x 24, 1 missing" in "\n".join(shown)
    content = json.loads((out / "cohort_report.json").read_text())
    assert (content["errors"], content["warnings"], len(content["problems"])) == (2, 1, 3)
    assert content["cohort"]["image_files"]["sizes"] == [{"width": 20, "height": 24, "images": 23}]
    page = (out / "cohort_report.html").read_text()
    assert "2 errors, 1 warning." in page
    assert "images/000.png" in page
    assert "&#34;20/40&#34;" in page


def test_a_good_cohort_ends_with_0_and_can_be_cached(path, tmp_path, capsys):
    options = ["--data", "table", "--data.file", str(path), "--data.image", "image", "--data.group", "patient"]
    options += ["--data.targets", "[fluid]", "--data.cache_dir", str(tmp_path / "cache")]
    assert main(["data", "check", *options]) == 0
    assert capsys.readouterr().out.startswith("no errors, no warnings\n")
    assert main(["data", "cache", *options]) == 0
    assert "24 decoded" in capsys.readouterr().out
    assert main(["data", "cache", *options]) == 0
    assert "nothing to decode" in capsys.readouterr().out


def test_a_table_of_100_000_rows_takes_less_than_a_minute(tmp_path):
    """The images are as small as they may be, in stacks, one for each patient; a few faults hide among them."""
    rng = np.random.default_rng(0)
    rows = patients_table(100_000)
    rows["image"] = [f"stack{row // 4000}.npy#{row // 4 % 1000}" for row in range(100_000)]
    for stack in range(25):
        np.save(tmp_path / f"stack{stack}.npy", rng.integers(0, 256, (1000, 8, 8), dtype=np.uint8))
    rows.loc[77_000, "image"] = "stack3.npy#1000"
    path = write_table(tmp_path, rows, with_images=False)
    plant(path, 50_000, "cst", "2x")
    started = time.process_time()  # of all threads: more than the time that passes on an idle machine
    check = check_cohort(config(path, clinical=CLINICAL, tabular=("bcva",), subgroups=("sex",)), 64)
    assert time.process_time() - started < 60
    assert [str(problem) for problem in check.problems if problem.severity == "error"] == [
        'cohort.csv row 50002 column cst: "2x" is not a number',
        "stack3.npy#1000: has 1000 images, numbered from 0, but number 1000 is asked for (row 77002)",
    ]
    assert check.summary["image_files"]["different"] == 25_001


def test_the_readings_of_lidc_are_in_order(lidc, cache_dir):
    loaded = load_checked(DataConfig(image_size=32, cache_dir=cache_dir))
    assert loaded.images.shape == lidc.images.shape
    assert load_table(DataConfig(cache_dir=cache_dir)).title == loaded.title
