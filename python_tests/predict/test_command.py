import csv

import numpy as np
import pandas as pd
import pytest
from random_model import write_model
from table_cohort import write_cohort

import mmcuda
from mmcuda.cli import main
from mmcuda.data import DataConfig
from mmcuda.errors import UserError
from mmcuda.predict.command import predict_command
from mmcuda.predict.config import PredictConfig


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check(rows, names, model, folder):
    assert [row["image"] for row in rows] == names
    expected = model.predict([folder / name for name in names])
    found = [[float(row["drusen"]), float(row["fluid"])] for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.fixture
def model(model_folder):
    return mmcuda.load(model_folder)


def test_every_image_of_a_folder_gets_its_probabilities(model_folder, model, pictures, tmp_path, capsys):
    folder, names = pictures
    out = tmp_path / "scores.csv"
    assert main(["predict", str(model_folder), "--images", str(folder), "--out", str(out)]) == 0
    assert f"scores    5 images, targets: drusen, fluid, in {out}" in capsys.readouterr().out
    assert list(rows_of(out)[0]) == ["image", "drusen", "fluid"]
    check(rows_of(out), sorted(names), model, folder)


def test_a_table_needs_an_image_column_alone(model_folder, model, pictures, tmp_path):
    folder, names = pictures
    pd.DataFrame({"path": names}).to_csv(folder / "new.csv", index=False)
    out = tmp_path / "scores.csv"
    arguments = ["--data", "table", "--data.file", str(folder / "new.csv"), "--data.image", "path"]
    assert main(["predict", str(model_folder), *arguments, "--batch_size", "2", "--out", str(out)]) == 0
    check(rows_of(out), names, model, folder)


def test_patients_are_written_where_they_are_known(model_folder, model, pictures, tmp_path):
    folder, names = pictures
    pd.DataFrame({"path": names, "who": list("xyzxy")}).to_csv(tmp_path / "new.csv", index=False)
    data = DataConfig(source="table", file=tmp_path / "new.csv", root=folder, image="path", group="who")
    predict_command(model_folder, PredictConfig(data=data), tmp_path / "scores.csv")
    rows = rows_of(tmp_path / "scores.csv")
    assert [row["patient"] for row in rows] == list("xyzxy")
    check(rows, names, model, folder)


def test_a_model_is_trained_on_a_table_and_predicts_it_and_new_images(tmp_path):
    data, table = write_cohort(tmp_path), pd.read_csv(tmp_path / "cohort.csv")
    run, tuned, out = tmp_path / "run", tmp_path / "tuned", tmp_path / "scores.csv"
    assert main(["pretrain", "--method", "random", *data, "--out", str(run)]) == 0
    assert main(["finetune", str(run), "--bootstrap", "5", "--out", str(tuned)]) == 0
    assert main(["predict", str(tuned), "--out", str(out)]) == 0
    scores = pd.read_csv(out)
    assert list(scores["patient"]) == list(table["patient"])
    with np.load(tuned / "predictions.npz") as arrays:
        tested = arrays["random/1.0/seed0"][:, 0]
    np.testing.assert_allclose(scores["drusen"][table["split"] == "test"], tested, rtol=1e-4)
    files = [tmp_path / name for name in table["path"]]
    np.testing.assert_allclose(mmcuda.load(tuned).predict(files)[:, 0], scores["drusen"], rtol=1e-4)


def test_all_images_that_cannot_be_read_are_named_with_their_rows_and_nothing_is_written(
    model_folder, pictures, tmp_path
):
    folder, names = pictures
    pd.DataFrame({"path": ["gone.png", *names, "notes.txt"]}).to_csv(tmp_path / "new.csv", index=False)
    data = DataConfig(source="table", file=tmp_path / "new.csv", root=folder, image="path")
    with pytest.raises(UserError, match=r"gone.png: missing \(row 2\); notes.txt: .* \(row 8\)"):
        predict_command(model_folder, PredictConfig(data=data), tmp_path / "scores.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


def test_what_cannot_be_predicted_is_told(model_folder, pictures, tmp_path):
    folder, _ = pictures
    out = tmp_path / "scores.csv"
    table = DataConfig(source="table", file=folder / "new.csv", image="path")
    with pytest.raises(UserError, match="--images and --data exclude each other: give one of them"):
        PredictConfig(images=folder, data=table)
    with pytest.raises(UserError, match=r"--images must be a folder, got .*notes.txt"):
        predict_command(model_folder, PredictConfig(images=folder / "notes.txt"), out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--images must be a folder with images, got none in .*empty"):
        predict_command(model_folder, PredictConfig(images=tmp_path / "empty"), out)
    with pytest.raises(UserError, match="does not say which images to predict: give --images FOLDER, or --data table"):
        predict_command(model_folder, PredictConfig(), out)
    encoder = write_model(tmp_path / "encoder", targets=())
    with pytest.raises(UserError, match="is an encoder without a classifier"):
        predict_command(encoder, PredictConfig(images=folder), out)
    with pytest.raises(UserError, match=r"--out must end in .csv, got"):
        predict_command(model_folder, PredictConfig(images=folder), tmp_path / "scores.txt")
    assert not out.exists()
