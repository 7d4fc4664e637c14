"""A study of targets of every kind, from the table to the report."""

import json

import numpy as np
import pandas as pd
import pytest
from running import run
from sklearn.metrics import r2_score

from mmcuda.evaluate.bootstrap import bootstrap_weights
from mmcuda.targets import KINDS


@pytest.fixture(scope="module")
def mixed(study_yaml, tmp_path_factory):
    """The folder of a study of four targets, one of each kind, and what it printed."""
    table = pd.read_csv(study_yaml.with_name("cohort.csv"))
    table["shape"] = table["square"].map({0: "disc", 1: "square"}) + table["large"].map({0: "", 1: ", large"})
    table.to_csv(study_yaml.with_name("kinds.csv"), index=False)
    text = study_yaml.read_text().replace("cohort.csv", "kinds.csv").replace("clinical:size", "random")
    text = text.replace("clinical-input, ", "").replace("clinical: {size: {within: 0.1}, grade: equal}\n", "\n")
    targets = "[{size: continuous}, square, {grade: ordinal}, {shape: multiclass}]"
    path = study_yaml.with_name("kinds.yaml")
    path.write_text(text.replace("[square, large]", targets))
    folder = tmp_path_factory.mktemp("studies") / "kinds"
    return folder, run(folder, path)


def test_every_kind_has_rows_means_and_intervals_of_its_own(mixed):
    rows = pd.DataFrame(json.loads((mixed[0] / "metrics.json").read_text()))
    names = {"binary": "square", "multiclass": "shape", "ordinal": "grade", "continuous": "size"}
    for kind, of_kind in rows.groupby("kind"):
        assert list(of_kind["target"].unique()) == [names[kind], "mean"]
        for metric in KINDS[kind].metrics:
            known = of_kind.dropna(subset=metric)
            assert len(known)
            assert (known[f"{metric}_low"] <= known[metric]).all()
            assert (known[metric] <= known[f"{metric}_high"]).all()
    assert rows.loc[(rows["kind"] == "continuous") & (rows["target"] == "mean"), "mae"].isna().all()
    results = pd.read_csv(mixed[0] / "results.csv")
    paired = results[results["difference"].notna() & (results["target"] == "mean")]
    assert set(paired["kind"]) == set(KINDS)


def test_the_interval_is_that_of_resampled_patients(mixed):
    """Against an explicit loop, at full labels, where there is a single draw."""
    with np.load(mixed[0] / "predictions.npz") as arrays:
        truth, predicted = arrays["targets"][:, 0], arrays["simclr/1.0/seed0"][:, 0]
        patients = arrays["patients"]
        assert arrays["simclr/1.0/seed0"].shape[1] == 1 + 1 + 4 + 4
    scores = []
    for row in bootstrap_weights(patients, 40)[1:]:
        images = np.repeat(np.arange(len(truth)), row.astype(int))
        scores.append(r2_score(truth[images], predicted[images]))
    rows = pd.DataFrame(json.loads((mixed[0] / "metrics.json").read_text())).set_index(
        ["arm", "label_fraction", "target"]
    )
    row = rows.loc[("simclr", 1.0, "size")]
    assert row["r2"] == pytest.approx(r2_score(truth, predicted), rel=1e-5)
    assert [row["r2_low"], row["r2_high"]] == pytest.approx(np.percentile(scores, [2.5, 97.5]), rel=1e-5)


def test_the_report_has_a_section_and_figures_for_every_kind(mixed):
    folder, printed = mixed
    page = (folder / "report.html").read_text()
    for kind in ("multiclass", "ordinal", "continuous"):
        assert f'<section id="{kind}">' in page
        assert (folder / "plots" / f"predicted_{kind}.png").is_file()
        assert (folder / "plots" / f"label_efficiency_{kind}.png").is_file()
        assert f"mean {KINDS[kind].metrics[KINDS[kind].primary()].label} by label fraction" in printed
