from dataclasses import replace

import numpy as np
import pytest

from mmcuda import Equal
from mmcuda.data import ClinicalLabel, load_cohort
from mmcuda.errors import UserError


def label(values):
    return {"cst": ClinicalLabel(np.array(values), Equal(), "um")}


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("images", lambda cohort: cohort.images[:, 0]),
        ("images", lambda cohort: cohort.images[:10].astype(np.float32)),
        ("channel_names", lambda cohort: ("one",)),
        ("patients", lambda cohort: cohort.patients[1:]),
        ("patients", lambda cohort: cohort.bags),
        ("bags", lambda cohort: cohort.bags[1:]),
        ("bags", lambda cohort: cohort.bags.astype(float)),
        ("clinical", lambda cohort: label([1.0, 2.0])),
        ("clinical", lambda cohort: label(np.full(len(cohort.bags), np.inf))),
        ("targets", lambda cohort: {"fluid": np.zeros(3, dtype=np.float32)}),
        ("targets", lambda cohort: {"fluid": np.full(len(cohort.bags), 2.0, dtype=np.float32)}),
    ],
)
def test_a_wrong_field_is_named(lidc, field, wrong):
    with pytest.raises(ValueError, match=rf"^{field}.* must .*, got "):
        replace(lidc, **{field: wrong(lidc)})


def test_load_cohort_by_name(lidc, cache_dir):
    cohort = load_cohort("lidc", 32, cache_dir)
    assert cohort.name == "lidc"
    assert "not pathology" in cohort.statement
    assert "Armato" in cohort.statement


def test_unknown_source_lists_the_known_ones():
    with pytest.raises(UserError, match="source must be one of lidc, got 'olives'"):
        load_cohort("olives")
