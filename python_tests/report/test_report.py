import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pages import Page

from mmcuda.errors import UserError
from mmcuda.report.metric_tables import decision_table
from mmcuda.report.results import Results
from mmcuda.report.run import read_run
from mmcuda.report.wording import percent, score_text
from mmcuda.report.write import findings, write_report

WriteRun = Callable[..., Path]

SECTIONS = ["finding", "pairs", "cohort", "results", "embedding", "training", "reproduce"]
FIGURES = [
    "label_efficiency",
    "differences",
    "samples",
    "roc",
    "precision_recall",
    "calibration",
    "embedding",
    "training",
]
DASH = "\N{EN DASH}"


@pytest.fixture(scope="module")
def run(write_run: WriteRun) -> Path:
    folder = write_run()
    assert write_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def test_sections_come_in_order_and_all_tags_close(page: str) -> None:
    parsed = Page(page)
    assert [section["id"] for section in parsed.all("section")] == SECTIONS
    assert parsed.open == []


def test_page_needs_nothing_from_outside(page: str) -> None:
    parsed = Page(page)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in parsed.tags}
    for _, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:image/png;base64,")), target
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_every_figure_is_embedded_once_with_a_description(page: str, run: Path) -> None:
    parsed = Page(page)
    assert [figure["id"] for figure in parsed.all("figure")] == [f"figure-{name}" for name in FIGURES]
    drawings = [svg for svg in parsed.all("svg") if svg.get("role") == "img"]
    assert len(drawings) == len(FIGURES)
    assert all(len(svg["aria-label"] or "") > 30 for svg in drawings)
    assert sorted(path.stem for path in (run / "plots").iterdir()) == sorted(FIGURES)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (run / "plots").iterdir())


def test_ids_are_unique_and_references_resolve(page: str) -> None:
    tags = Page(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    assert references
    assert set(references) <= set(ids)


def test_figures_take_the_colours_of_the_page(page: str) -> None:
    drawings = re.findall(r"<svg role.*?</svg>", page, flags=re.S)
    assert all("currentColor" in svg and "#1c1d1f" not in svg for svg in drawings)
    assert "prefers-color-scheme: dark" in page


def test_tables_hold_the_numbers_of_the_metrics(page: str, run: Path) -> None:
    rows = pd.read_json(run / "metrics.json")
    tables = re.findall(r'<table class="scores">.*?</table>', page, flags=re.S)  # the others have an id
    for table, metric in zip(tables, ("auroc", "auprc"), strict=True):
        cells = iter(re.findall(r'<td class="number(?: best)?">(.*?)</td>', table))
        for target in ("mean", "malignancy", "spiculation", "calcification"):
            for arm in ("random", "simclr", "shuffled", "clinical"):
                for fraction in (0.02, 0.05, 0.25, 1.0):
                    chosen = (rows["target"] == target) & (rows["arm"] == arm) & (rows["label_fraction"] == fraction)
                    values = rows.loc[chosen, metric]
                    assert next(cells) == f"{values.mean():.3f} ± {values.std():.3f}".replace("0.", ".")
        assert next(cells, None) is None


def table_of(page: str, name: str) -> list[list[str]]:
    """The cells of a table on the page, row by row; the head of a group stands before its first row only."""
    table = re.search(rf'<table class="scores" id="{name}">.*?</table>', page, flags=re.S)
    assert table
    rows = re.findall(r"<tr>(.*?)</tr>", table[0], flags=re.S)
    return [re.findall(r"<t[hd][^>]*>(?:<p>)?(.*?)(?:</p>)?</t[hd]>", row, flags=re.S) for row in rows]


def seeds_of(table: pd.DataFrame, metric: str, **keys: object) -> str:
    """A score of clinical at the headline fraction as the page writes it."""
    values = table.loc[np.logical_and.reduce([table[key] == value for key, value in keys.items()]), metric]
    return f"{values.mean():.3f} ± {values.std():.3f}".replace("0.", ".")


CLINICAL = {"arm": "clinical", "label_fraction": 0.05}


def test_decisions_and_calibration_are_tables_at_the_headline_fraction(page: str, run: Path) -> None:
    rows = pd.read_json(run / "metrics.json")
    head, *body = table_of(page, "decisions")
    assert head[2:] == ["threshold", "sensitivity", "specificity", "precision", "F1", "accuracy", "balanced accuracy"]
    assert [cells[0] for cells in body if len(cells) == 9] == ["mean", "malignancy", "spiculation", "calcification"]
    clinical = [cells for cells in body if cells[0] == "clinical"][1]  # of malignancy
    metrics = ["threshold", "sensitivity", "specificity", "precision", "f1", "accuracy", "balanced_accuracy"]
    means = [seeds_of(rows, metric, **CLINICAL, target="malignancy").split()[0] for metric in metrics]
    assert clinical[1:] == means
    errors = table_of(page, "calibration-errors")
    assert errors[0][2:] == ["ECE", "Brier score"]
    assert f"clinical {seeds_of(rows, 'exact_match', **CLINICAL, target='mean')}." in page


def test_levels_and_subgroups_are_tables(page: str, run: Path) -> None:
    levels, subgroups = (pd.read_json(run / f"{name}.json") for name in ("levels", "subgroups"))
    head, *body = table_of(page, "levels")
    assert head[2:] == ["by image", "by bag", "by patient"]
    mean = next(cells for cells in body if cells[0] == "clinical")
    assert mean[3] == seeds_of(levels, "auroc", **CLINICAL, target="mean", level="patient")
    head, *body = table_of(page, "subgroup-1")
    assert head[:4] == ["target", "diameter", "images", "positive"]
    assert body[0][:4] == ["malignancy", "0 to 6 mm", "2,069", "415"]
    assert body[1][0] == "6 mm and more"
    assert body[1][3] == seeds_of(subgroups, "auroc", **CLINICAL, target="malignancy", value="6 mm and more")


def test_why_a_number_is_missing_is_told_below_its_table(write_run: WriteRun) -> None:
    folder = write_run({"random": 0.585, "clinical": 0.61}, seeds=1)
    rows = json.loads((folder / "metrics.json").read_text())
    for row in rows:
        if row["label_fraction"] == 0.05 and row["target"] == "spiculation":
            row.update(dict.fromkeys(("threshold", "sensitivity", "f1")), note="no threshold")
    (folder / "metrics.json").write_text(json.dumps(rows))
    metrics = read_run(folder).metrics
    decisions = decision_table(Results(metrics), metrics, ["mean", "malignancy", "spiculation"])
    assert decisions.notes == ["spiculation (random, clinical): no threshold."]
    assert decisions.groups["spiculation"]["clinical"][:2] == [DASH, DASH]


def test_findings_name_the_interval_and_the_gain(page: str) -> None:
    assert re.search(r"clinical at 5\xa0% of the labelled patients reaches what simclr needs \d\d\xa0% for\.", page)
    assert "one standard deviation over 3 seeds" in page


def test_every_pair_is_in_a_table_and_its_certainty_in_the_finding(write_run: WriteRun) -> None:
    folder = write_run({"random": 0.58, "simclr": 0.61, "supervised": 0.55, "clinical:a & b": 0.63, "clinical": 0.65})
    page = write_report(folder, ["clinical at 5 %, seed 1"]).read_text(encoding="utf-8")
    assert Page(page).open == []
    (table,) = re.findall(r'<table id="differences">.*?</table>', page, flags=re.S)
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', table, flags=re.S)
    assert [row[0] for row in rows] == ["random", "supervised", "clinical:a &amp; b", "clinical"]
    results = pd.read_csv(folder / "results.csv").set_index(["arm", "label_fraction", "target"])
    gap = results.loc[("clinical", 0.05, "mean"), "difference"]
    text = f"+{gap:.3f} (+{gap - 0.01:.3f} to +{gap + 0.01:.3f})".replace("0.", ".")
    assert re.findall(r'"number">(.*?)</td>', rows[-1][1])[2:4] == [text, ".004"]
    assert findings(folder)[2] == f"The paired difference at 5\xa0% is {text}, p = .004, over 3 seeds."
    assert "Missing, because they failed or have not been computed: clinical at 5 %, seed 1." in page
    assert "of supervised, encoder and classifier are trained with these labels" in page
    (needed,) = re.findall(r'<table id="labels-needed">.*?</table>', page, flags=re.S)
    assert re.findall(r'<th scope="row">(.*?)</th>', needed) == [row[0] for row in rows]


def test_any_arm_may_be_the_baseline(write_run: WriteRun) -> None:
    folder = write_run({"random": 0.58, "clinical:a & b": 0.63, "clinical": 0.65}, baseline="clinical")
    assert findings(folder)[0].startswith("clinical:a & b saves no labels against clinical: a mean AUROC of .6")


def test_cohort_and_origin_are_told(page: str) -> None:
    for text in (
        "6,859 images",
        "875 patients",
        "passed: no patient on both sides",
        "within 2",
        "internal structure",
        "not CT intensities",
        "mmcuda train --data lidc --out runs/demo",
        "temperature: 0.07",
        "2.14.1",
        "9\xa0min 05\xa0s",
        "Example CPU &lt;2 cores&gt;",
    ):
        assert text in page


def test_model_card_has_the_results_and_the_limits(run: Path) -> None:
    card = (run / "README.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", card, flags=re.M)
    assert headings == [
        "The model",
        "Data",
        "Intended use",
        "Out of scope",
        "Training",
        "Results",
        "Limits",
        "Load the weights",
        "Reproduce",
    ]
    results = Results(pd.read_json(run / "metrics.json"))
    cells = " | ".join(score_text(results.score("clinical", fraction), True) for fraction in results.fractions)
    assert f"| mean | clinical | {cells} |" in card
    assert "(plots/label_efficiency.png)" in card


def test_the_wording_flips_when_clinical_loses_and_one_seed_shows_the_bootstrap(write_run: WriteRun) -> None:
    folder = write_run({"random": 0.585, "simclr": 0.66, "clinical": 0.61}, seeds=1)
    page = write_report(folder).read_text(encoding="utf-8")
    assert "clinical saves no labels against simclr" in page
    assert "reaches what simclr needs" not in page
    assert "bootstrap intervals over test patients; one seed" in page
    assert re.search(rf"\.\d{{3}} \(\.\d{{3}}{DASH}\.\d{{3}}\)", page)


def test_a_run_with_a_random_encoder_only_has_no_training_and_html_is_escaped(write_run: WriteRun) -> None:
    folder = write_run({"random": 0.585}, seeds=1, title="<b>bold</b> & 'quoted'")
    for name in ("levels", "subgroups"):  # as where every patient has one image, and no column makes subgroups
        (folder / f"{name}.json").unlink()
    page = write_report(folder).read_text(encoding="utf-8")
    figures = [figure["id"] for figure in Page(page).all("figure")]
    assert figures == [f"figure-{name}" for name in FIGURES if name not in ("differences", "training")]
    assert "random alone: a mean AUROC of .5" in page
    assert "Nothing was pretrained in this run." in page
    assert "By bag" not in page
    assert "Subgroups" not in page
    assert "<b>" not in page
    assert "<h1>&lt;b&gt;bold&lt;/b&gt; &amp; &#39;quoted&#39;</h1>" in page


def test_a_target_that_could_not_be_trained_is_a_dash(write_run: WriteRun) -> None:
    folder = write_run({"random": 0.585}, seeds=1)
    rows = json.loads((folder / "metrics.json").read_text())
    for row in rows:
        if row["label_fraction"] in (0.02, 0.05) and row["target"] == "spiculation":
            row.update(auroc=None, auroc_low=None, auroc_high=None, auprc=None)
    (folder / "metrics.json").write_text(json.dumps(rows))
    with np.load(folder / "predictions.npz") as arrays:
        predictions = dict(arrays)
    predictions["random/0.05/seed0"][:, 1] = np.nan
    np.savez(folder / "predictions.npz", **predictions)
    page = write_report(folder).read_text(encoding="utf-8")
    assert page.partition("<h3>Decisions")[0].count(f">{DASH}</td>") == 4  # AUROC and AUPRC at two fractions
    assert f"At {percent(0.02)} the mean lacks spiculation" in page


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "environment.json",
        "cohort.json",
        "metrics.json",
        "results.csv",
        "predictions.npz",
        "embedding.npz",
        "samples.npz",
        "logs/simclr-seed0.csv",
    ],
)
def test_a_missing_file_is_named(write_run: WriteRun, name: str) -> None:
    folder = write_run({"simclr": 0.6, "clinical": 0.6}, seeds=1)
    (folder / name).unlink()
    with pytest.raises(UserError, match=re.escape(f"{name}: file is missing")):
        write_report(folder)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("metrics.json", "[{]", "cannot be read"),
        ("metrics.json", '[{"target": "mean"}]', "expected rows with arm, kind, label_fraction"),
        ("levels.json", '[{"target": "mean"}]', "expected rows with level, arm, kind, label_fraction"),
        ("subgroups.json", "{", "cannot be read"),
        ("results.csv", "arm,target\n", "expected columns label_fraction, kind, baseline, pairs"),
        ("cohort.json", '{"name": "lidc"}', "expected an entry 'title'"),
        ("predictions.npz", "not an archive", "cannot be read"),
        ("logs/simclr-seed0.csv", "step,loss\n0,1\n", "expected columns epoch, learning_rate"),
    ],
)
def test_a_malformed_file_is_named(write_run: WriteRun, name: str, content: str, complaint: str) -> None:
    folder = write_run({"simclr": 0.6}, seeds=1)
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(f"{name}: {complaint}")):
        write_report(folder)
