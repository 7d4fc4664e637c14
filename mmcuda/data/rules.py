"""The rules by which the values of a clinical column make positives, as the user writes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mmcuda.errors import UserError

Spec = dict[str, Any] | tuple[str, ...] | str | None
RULES = "equal, category, {within: tolerance}, {rbf: sigma}, {bins: number}, {quantiles: number}"


@dataclass(frozen=True)
class Rule:
    """How the values of one column make positives."""

    kind: str  # equal, category (words whatever they look like), within, rbf, bins, quantiles
    amount: float = 0.0  # tolerance, sigma, or number of bins
    weight: float = 1.0  # in the sum of the losses

    def __str__(self) -> str:
        return f"{self.kind} {self.amount:g}" if self.kind not in ("equal", "category") else self.kind


def parse_rules(spec: Spec) -> dict[str, Rule | None] | None:
    """Return the rule of each column, None where it is to be inferred; None altogether for ``auto``.

    Raises:
        UserError: naming the column whose rule is not one of ``RULES``.
    """
    if spec == "auto":
        return None
    if isinstance(spec, dict):
        return {column: _parse_rule(column, rule) for column, rule in spec.items()}
    return dict.fromkeys((spec,) if isinstance(spec, str) else spec or ())


def _parse_rule(column: str, spec: Any) -> Rule:
    fault = UserError(f"--data.clinical: {column} must be one of {RULES}, with an optional weight; got {spec}")
    if isinstance(spec, str):
        if spec not in ("equal", "category"):
            raise fault
        return Rule(spec)
    if not isinstance(spec, dict):
        raise fault
    rest = dict(spec)
    weight = rest.pop("weight", 1.0)
    if len(rest) > 1 or not _is_positive(weight):
        raise fault
    kind, amount = next(iter(rest.items()), ("equal", 0.0))
    if kind not in ("within", "rbf", "bins", "quantiles"):
        if rest:
            raise fault
    elif not _is_positive(amount) or (kind in ("bins", "quantiles") and (amount < 2 or amount % 1)):
        raise fault
    return Rule(kind, float(amount), float(weight))


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf
