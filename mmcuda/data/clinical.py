"""Clinical labels of a table: the rule by which each makes positives, given by the user or inferred from its cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmcuda.data.columns import DATE, Floats, cell_errors, is_numeric, read_numbers, read_texts
from mmcuda.data.problems import Problem
from mmcuda.data.rules import Rule, Spec, parse_rules
from mmcuda.data.sheet import Sheet
from mmcuda.data.table import ClinicalLabel
from mmcuda.relations import Equal, Rbf, Relation, Within

GRADES = 10  # a column of at most so many different whole numbers is taken as grades
CATEGORIES = 20  # a column of more different words, most of them rare, is taken as free text
TOLERANCE_SHARE = 0.25  # of the standard deviation: of normal values, one other in seven is then a positive
ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)  # first digits of a proposed tolerance


@dataclass(frozen=True)
class Inferred:
    """A rule that was inferred, and why; no rule where the column cannot be a clinical label."""

    rule: Rule | None
    reason: str


def read_clinical(
    sheet: Sheet, spec: Spec, others: set[str]
) -> tuple[dict[str, ClinicalLabel], list[Problem], list[str]]:
    """Return the clinical labels of a sheet, the problems of their cells, and a note for each inferred rule.

    Args:
        sheet: the table.
        spec: the rules, columns without rules, or ``auto`` for all columns that can be clinical labels.
        others: columns with another role, which ``auto`` leaves alone.
    """
    rules = parse_rules(spec)
    is_auto = rules is None
    if rules is None:
        rules = dict.fromkeys(column for column in sheet.frame.columns if column not in others)
    labels: dict[str, ClinicalLabel] = {}
    problems: list[Problem] = []
    notes: list[str] = []
    for column, rule in rules.items():
        if rule is None:
            inferred = infer_rule(sheet, column)
            if inferred.rule is None:
                if is_auto:
                    notes.append(f"{column}: no clinical label, since {inferred.reason}")
                else:
                    problems.append(
                        Problem("error", sheet.where_all(column), f"is no clinical label: {inferred.reason}")
                    )
                continue
            rule = inferred.rule
            notes.append(f"{column}: {rule}, inferred ({inferred.reason})")
        label, faults = read_label(sheet, column, rule)
        labels[column] = label
        problems += faults
    return labels, problems, notes


def infer_rule(sheet: Sheet, column: str) -> Inferred:
    """Infer from its cells by which rule a column makes positives."""
    texts, _ = read_texts(sheet, column)
    known = texts[texts != ""]
    different = known.nunique()
    if different < 2:
        return Inferred(None, "it has the same value everywhere" if different else "it is empty")
    if known.str.match(DATE).mean() > 0.5:
        return Inferred(None, f'it holds dates such as "{known.iloc[0]}"; give an age or a number of days instead')
    if not is_numeric(texts):
        if different > CATEGORIES and 2 * different > len(known):
            return Inferred(None, f"{different} of {len(known)} cells differ, so hardly two images share a value")
        return Inferred(Rule("equal"), f"{different} categories")
    numbers = read_numbers(sheet, column)[0]
    numbers = numbers[np.isfinite(numbers)]
    if len(np.unique(numbers)) < 2:  # hardly a number is well: the cells' own faults say more
        return Inferred(Rule("equal"), "numbers")
    span = f"from {numbers.min():g} to {numbers.max():g}"
    if different <= GRADES and (numbers % 1 == 0).all():
        return Inferred(Rule("equal"), f"{different} grades {span}")
    tolerance = propose_tolerance(numbers)
    return Inferred(Rule("within", tolerance), f"continuous, {different} different values {span}")


def propose_tolerance(values: Floats) -> float:
    """Return a round number near a quarter of the standard deviation of ``values`` [n], all finite."""
    wanted = TOLERANCE_SHARE * float(values.std())
    power = 10.0 ** math.floor(math.log10(wanted))
    return min((digit * power for digit in ROUND), key=lambda tolerance: abs(math.log(tolerance / wanted)))


def read_label(sheet: Sheet, column: str, rule: Rule) -> tuple[ClinicalLabel, list[Problem]]:
    """Return one clinical label, and the problems of its cells."""
    texts, problems = read_texts(sheet, column)
    if rule.kind == "category" or (rule.kind == "equal" and not is_numeric(texts)):
        if rule.kind == "equal":
            problems += _numbers_among_words(sheet, column, texts)
        words = np.unique(texts[texts != ""])
        codes = np.searchsorted(words, texts).astype(np.float64)
        named = ", ".join(str(word) for word in words[:8]) + (", ..." if len(words) > 8 else "")
        label = ClinicalLabel(
            np.where(texts == "", np.nan, codes), Equal(), f"{column}, {len(words)} categories: {named}", rule.weight
        )
    else:
        numbers, problems = read_numbers(sheet, column)
        label = _numeric_label(column, numbers, rule)
    if not np.isfinite(label.values).any() and not problems:
        problems = [Problem("error", sheet.where_all(column), "is empty")]
    return label, problems


def _numbers_among_words(sheet: Sheet, column: str, texts: pd.Series) -> list[Problem]:
    advice = f"is a number among words; to compare cells as text write --data.clinical '{{{column}: category}}'"
    numeric = pd.to_numeric(texts, errors="coerce").notna()
    return cell_errors(sheet, column, numeric, lambda cell: f'"{cell}" {advice}')


def _numeric_label(column: str, numbers: Floats, rule: Rule) -> ClinicalLabel:
    known = numbers[np.isfinite(numbers)]
    if len(known) == 0:
        return ClinicalLabel(numbers, Equal(), column, rule.weight)
    low, high = float(known.min()), float(known.max())
    span = f"{column}, {len(np.unique(known))} different values from {low:g} to {high:g}"
    if rule.kind in ("bins", "quantiles"):
        shares = np.arange(1, rule.amount) / rule.amount
        if rule.kind == "bins":
            cuts, named = low + shares * (high - low), "of equal width"
            bins = np.searchsorted(cuts, numbers, side="right")
        else:  # a value that many share, such as 0, stays below its cut, apart from those above
            cuts, named = np.unique(np.quantile(known, shares)), "of equal size"
            bins = np.searchsorted(cuts, numbers, side="left")
        binned = np.where(np.isfinite(numbers), bins, np.nan)
        at = ", ".join(f"{cut:.4g}" for cut in cuts)
        return ClinicalLabel(binned, Equal(), f"{span}, in {len(cuts) + 1} bins {named}, cut at {at}", rule.weight)
    relations: dict[str, Callable[[float], Relation]] = {"within": Within, "rbf": Rbf}
    relation = relations[rule.kind](rule.amount) if rule.kind in relations else Equal()
    return ClinicalLabel(numbers, relation, span, rule.weight)
