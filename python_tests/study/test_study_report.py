"""The page of a study, written from made-up results."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from pages import Page

from mmcuda.report.study import Study, study_findings, write_study_report

ARMS = {"random": 0.58, "simclr": 0.61, "supervised": 0.55, "clinical:a & b": 0.63, "clinical": 0.65}
FRACTIONS = (0.05, 1.0)


def made_up(baseline="simclr", missing=()):
    rng = np.random.default_rng(0)
    metrics = [
        {
            **{"pretraining": arm, "label_fraction": fraction, "seed": seed, "target": target},
            **{"auroc": level + 0.02 * (fraction == 1) + rng.normal(0, 0.002), "auprc": level - 0.2},
        }
        for arm, level in ARMS.items()
        for fraction in FRACTIONS
        for seed in range(3)
        for target in ("square", "large", "mean")
    ]
    table = [
        {
            **{"arm": arm, "label_fraction": fraction, "target": target, "pairs": 3, "p": 0.004},
            "difference": np.nan if arm == baseline else level - ARMS[baseline],
            **{"difference_low": level - ARMS[baseline] - 0.01, "difference_high": level - ARMS[baseline] + 0.01},
        }
        for arm, level in ARMS.items()
        for fraction in FRACTIONS
        for target in ("square", "large", "mean")
    ]
    meanings = {arm: f"what {arm} means" for arm in ARMS}
    return Study(pd.DataFrame(table), pd.DataFrame(metrics), meanings, baseline, list(missing))


@pytest.fixture
def folder(whole, tmp_path):
    for name in ("cohort.json", "environment.json", "samples.npz", "config.yaml"):
        shutil.copy(whole[0] / name, tmp_path / name)
    return tmp_path


def test_the_page_stands_alone_and_shows_every_pair(folder):
    page = write_study_report(made_up(), folder).read_text(encoding="utf-8")
    parsed = Page(page)
    assert parsed.open == []
    assert [section["id"] for section in parsed.all("section")] == [
        "finding",
        "pairs",
        "results",
        "cohort",
        "reproduce",
    ]
    figures = [figure["id"] for figure in parsed.all("figure")]
    assert figures == ["figure-label_efficiency", "figure-differences", "figure-samples"]
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in parsed.tags}
    assert "clinical:a &amp; b" in page
    (table,) = re.findall(r'<table id="differences">.*?</table>', page, flags=re.S)
    rows = re.findall(r'<th scope="row">(.*?)</th><td class="number">(.*?)</td><td class="number">(.*?)</td>', table)
    assert [row[0] for row in rows] == ["random", "supervised", "clinical:a &amp; b", "clinical"]
    assert rows[-1][1:] == ("+.040 (+.030 to +.050)", ".004")
    assert "Incomplete" not in page


def test_missing_cells_are_named(folder):
    page = write_study_report(made_up(missing=["clinical at 5 %, seed 1"]), folder).read_text(encoding="utf-8")
    assert "Missing, because they failed or have not been computed: clinical at 5 %, seed 1." in page


def test_the_findings_give_the_gain_in_labels_and_its_certainty():
    headline, labels, pair = study_findings(made_up(), train_patients=600)
    assert headline == "clinical at 5\xa0% of the labelled patients does better than simclr at 100\xa0%."
    assert labels == "About 30 labelled patients do better than 600 do after simclr."
    assert pair == "The paired difference at 5\xa0% is +.040 (+.030 to +.050), p = .004, over 3 seeds."


def test_any_arm_may_be_the_baseline():
    headline, *_ = study_findings(made_up("clinical"), train_patients=600)
    assert headline.startswith("clinical:a & b saves no labels against clinical: a mean AUROC of .63")
