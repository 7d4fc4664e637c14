"""Clinical pretraining beats SimCLR on folders in the layouts of OLIVES and MIMIC-CXR, read by their own adapters."""

import json

import pandas as pd
import pytest
from phantoms.mimic import write_mimic
from phantoms.olives import write_olives
from running import run

FRACTION = 0.1
PHANTOMS = {
    "olives": (
        lambda root: write_olives(root, patients=80, visits=3, scans=6, size=(96, 96)),
        {"clinical": {"BCVA": {"within": 5}, "CST": {"within": 25}}, "targets": ["DRT/ME", "Fluid (IRF)", "IR HRF"]},
    ),
    "mimic-cxr": (
        lambda root: write_mimic(root, patients=300, studies=3, size=(64, 64)),
        {
            "clinical": {"No Finding": "equal"},
            "targets": ["Lung Opacity", "Atelectasis", "Cardiomegaly", "Edema", "Pleural Effusion"],
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("source", PHANTOMS)
def test_clinical_pretraining_beats_simclr(source, tmp_path):
    write, columns = PHANTOMS[source]
    write(tmp_path / "data")
    data = {"source": source, "root": str(tmp_path / "data"), "image_size": 32, "cache_dir": str(tmp_path / "cache")}
    study = {
        "arms": ["random", "simclr", "clinical"],
        "seeds": 3,
        "data": data | columns,
        "augment": {"rotation": 10.0, "flip": 0.5 if source == "olives" else 0.0},
        "pretrain": {"epochs": 20},
        "evaluate": {"label_fractions": [FRACTION], "draws": 3, "bootstrap": 300},
    }
    (tmp_path / "study.yaml").write_text(json.dumps(study))  # JSON is YAML
    screen = run(tmp_path / "study", tmp_path / "study.yaml")
    assert "no patient on both sides" in screen

    rows = pd.read_csv(tmp_path / "study" / "results.csv").set_index(["target", "arm"])
    clinical = rows.loc[("mean", "clinical")]
    assert clinical["difference"] > 0.02
    assert clinical["difference_low"] > 0
    assert clinical["p"] < 0.05
    cells = pd.read_csv(tmp_path / "study" / "metrics.csv").set_index(["target", "arm", "seed"])["auroc"]
    assert (cells["mean", "clinical"] > cells["mean", "simclr"]).all()
