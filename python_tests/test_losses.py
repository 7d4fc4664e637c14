"""The modules: SupContrast's signature and numbers, clinical values in one pass, clear errors."""

import math
import re

import pytest
import torch
from torch.nn.functional import normalize

from mmcuda import ClinicalSupConLoss, Equal, SupConLoss, Within


def supcontrast(features, labels=None, mask=None, temperature=0.07, contrast_mode="all", base_temperature=0.07):
    """SupContrast's loss as its authors define it: views concatenated view by view, log-probabilities over all others.

    Khosla et al. 2020, equation 2; an anchor without positives counts as 0.
    """
    b, v = features.shape[:2]
    rows = features.flatten(2).transpose(0, 1).flatten(0, 1)
    anchors = rows if contrast_mode == "all" else rows[:b]
    if labels is not None:
        mask = labels[:, None] == labels
    elif mask is None:
        mask = torch.eye(b)
    mask = mask.to(rows.dtype).repeat(len(anchors) // b, v)
    others = torch.ones_like(mask)
    others[torch.arange(len(anchors)), torch.arange(len(anchors))] = 0
    logits = anchors @ rows.T / temperature
    log_probability = logits - (logits.exp() * others).sum(1, keepdim=True).log()
    positives = (mask * others).sum(1)
    mean = (mask * others * log_probability).sum(1) / positives.where(positives > 0, 1)
    return -(temperature / base_temperature) * mean.mean()


@pytest.fixture
def features():
    return normalize(torch.randn(12, 3, 16, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("contrast_mode", ["all", "one"])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_supcon_has_supcontrasts_numbers(features, temperature, contrast_mode):
    settings = {"temperature": temperature, "contrast_mode": contrast_mode, "base_temperature": 0.1}
    loss = SupConLoss(**settings)
    labels = torch.arange(12) % 4
    mask = (torch.rand(12, 12) < 0.3).double()  # asymmetric; some anchors have no positives
    torch.testing.assert_close(loss(features), supcontrast(features, **settings))
    torch.testing.assert_close(loss(features, labels), supcontrast(features, labels, **settings))
    torch.testing.assert_close(loss(features, mask=mask), supcontrast(features, mask=mask, **settings))


def test_supcon_accepts_column_labels_and_flattens_features(features):
    labels = torch.arange(12) % 4
    expected = SupConLoss()(features, labels)
    torch.testing.assert_close(SupConLoss()(features.unflatten(2, (4, 4)), labels[:, None]), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": torch.ones(4, 8)}, "features must be [B, V, ...], at least 3 dimensions, got shape [4, 8]"),
        ({"labels": torch.zeros(5)}, "labels must have one value per sample, B = 4, got 5"),
        ({"labels": torch.zeros(4), "mask": torch.eye(4)}, "labels and mask cannot be given together"),
    ],
)
def test_supcon_refuses_what_supcontrast_refuses(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SupConLoss()(**({"features": torch.ones(4, 2, 8)} | arguments))
    with pytest.raises(ValueError, match="contrast_mode must be 'all' or 'one', got 'both'"):
        SupConLoss(contrast_mode="both")(torch.ones(4, 2, 8))


def test_clinical_is_the_weighted_sum_of_its_values(features):
    grade = torch.arange(12) % 5
    thickness = torch.linspace(200, 400, 12).masked_fill(torch.arange(12) == 3, math.nan)
    both = ClinicalSupConLoss({"grade": Equal(), "cst": Within(40.0)}, weights={"cst": 0.25}, temperature=0.1)
    of_grade = ClinicalSupConLoss({"grade": Equal()}, temperature=0.1)
    of_thickness = ClinicalSupConLoss({"cst": Within(40.0)}, temperature=0.1)
    values = {"grade": grade, "cst": thickness, "not used": grade}
    expected = of_grade(features, values) + 0.25 * of_thickness(features, values)
    torch.testing.assert_close(both(features, values), expected)
    torch.testing.assert_close(
        of_grade(features, values), SupConLoss(temperature=0.1)(features, grade), msg="one value is SupCon"
    )


def test_clinical_names_what_is_wrong(features):
    with pytest.raises(ValueError, match="relations must name at least one clinical value"):
        ClinicalSupConLoss({})
    with pytest.raises(ValueError, match=re.escape("weights must be of ['cst'], got also ['bcva']")):
        ClinicalSupConLoss({"cst": Equal()}, weights={"bcva": 1.0})
    with pytest.raises(ValueError, match=re.escape("weights['cst'] must be not negative and finite, got -1")):
        ClinicalSupConLoss({"cst": Equal()}, weights={"cst": -1.0})
    with pytest.raises(ValueError, match=re.escape("labels must have ['bcva', 'cst'], got no ['bcva']")):
        ClinicalSupConLoss({"cst": Equal(), "bcva": Equal()})(features, {"cst": torch.zeros(12)})


def test_clinical_names_the_value_that_is_wrong(features):
    loss = ClinicalSupConLoss({"cst": Within(25), "bcva": Equal()})
    with pytest.raises(ValueError, match=re.escape("labels['bcva'] must have one value per sample, B = 12, got 3")):
        loss(features, {"cst": torch.zeros(12), "bcva": torch.zeros(3)})
    with pytest.raises(TypeError, match=re.escape("labels['cst'] must be a tensor, got list")):
        loss(features, {"cst": [1.0] * 12, "bcva": torch.zeros(12)})
    with pytest.raises(TypeError, match="labels must map clinical values to tensors, got Tensor"):
        loss(features, torch.zeros(12))
    with pytest.raises(
        TypeError, match=re.escape("relations['cst'] must be Equal() or Within(tolerance), got 'equal'")
    ):
        ClinicalSupConLoss({"cst": "equal"})
    with pytest.raises(TypeError, match="labels must be a tensor, got list"):
        SupConLoss()(features, [0] * 12)


def test_print_shows_the_settings():
    loss = ClinicalSupConLoss({"bcva": Equal(), "cst": Within(25)}, weights={"cst": 0.5})
    assert "1 * bcva (equal) + 0.5 * cst (within 25), temperature=0.07" in repr(loss)
    assert "temperature=0.1, contrast_mode='one'" in repr(SupConLoss(0.1, "one"))
