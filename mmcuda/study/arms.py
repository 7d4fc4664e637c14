"""The arms of a study, ``METHOD[:LABEL][+READOUT]``: what each is, its look, its place among others.

``simclr`` and ``clinical`` are methods read by a linear probe; ``clinical:bcva`` learns from one clinical label and
``clinical:each`` stands for one arm a label; ``simclr+finetune`` fine-tunes all weights, ``simclr+values`` gives the
clinical values to the classifier as well. Two arms have names of their own: ``supervised`` is ``random+scratch`` and
``clinical-input`` is ``simclr+values``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mmcuda.errors import UserError, did_you_mean
from mmcuda.methods import Method, Random, Role, SimCLR, encoder_name, registered_methods
from mmcuda.study.readouts import PROBE, READOUTS, SCRATCH, VALUES, Readout

EACH = "each"  # in place of a label
SHOWN: tuple[Role, ...] = ("untrained", "given", "reference", "control", "proposed")  # from first to last
SUBJECTS: tuple[Role, ...] = ("proposed", "reference", "given", "control", "untrained")  # from likely to unlikely
BASELINES: tuple[Role, ...] = ("reference", "given", "untrained", "control", "proposed")


@dataclass(frozen=True)
class Arm:
    """A pretraining method, the clinical label that it learns from, and a readout."""

    method: type[Method]
    label: str | None = None  # None: all labels of the cohort, or the method needs none
    readout: Readout = PROBE

    @property
    def name(self) -> str:
        """The name on the command line and in tables."""
        for name, arm in NAMED.items():
            if arm == self:
                return name
        label = "" if self.label is None else f":{self.label}"
        return f"{self.method.name}{label}" + ("" if self.readout is PROBE else f"+{self.readout.name}")

    @property
    def meaning(self) -> str:
        """What it is, in words."""
        if self.readout.from_scratch:
            return self.readout.summary
        text = self.method.summary + ("" if self.label is None else f", the label {self.label} alone")
        return text if self.readout is PROBE else f"{self.method.name}: {text}; {self.readout.summary}"

    @property
    def color(self) -> str:
        """The colour of its curves."""
        return self.readout.color or self.method.color

    @property
    def marker(self) -> str:
        """The marker of its curves, a small diamond for a single label."""
        return "d" if self.label is not None else self.readout.marker or self.method.marker

    @property
    def role(self) -> Role:
        """Its part in a comparison."""
        return "reference" if self.readout in (SCRATCH, VALUES) else self.method.role

    def encoder(self, seed: int) -> str | None:
        """Return the name of the checkpoint and logs of its encoder in a run folder; None where it keeps none."""
        labels = () if self.label is None else (self.label,)
        return None if self.readout.from_scratch else encoder_name(self.method.name, labels, seed)

    def place(self, roles: Sequence[Role], labels: Sequence[str] = ()) -> tuple[int, ...]:
        """Return a key to sort arms by: role, readout, method, label; all labels together come last."""
        label = len(labels) if self.label is None else (*labels, self.label).index(self.label)
        methods = list(registered_methods())
        return (
            roles.index(self.role),
            list(READOUTS).index(self.readout.name),
            methods.index(self.method.name),
            label,
        )

    def controls(self, other: Arm) -> bool:
        """Return whether this arm is ``other`` but for what its method is a control of."""
        kin = self.role == "control" and self.method is not other.method and issubclass(self.method, other.method)
        return kin and (self.label, self.readout) == (other.label, other.readout)


NAMED = {"supervised": Arm(Random, readout=SCRATCH), "clinical-input": Arm(SimCLR, readout=VALUES)}


def parse_arm(name: str) -> Arm:
    """Return the arm of a name.

    Raises:
        UserError: if there is no such method or readout, or the method learns from no label.
    """
    if name in NAMED:
        return NAMED[name]
    method, colon, label = name.partition(":")
    rest, plus, readout = name.rpartition("+")
    if plus and readout in READOUTS:  # a label may hold a + as well
        method, colon, label = rest.partition(":")
    else:
        plus, readout = "", PROBE.name
    methods = registered_methods()
    known = [*methods, *NAMED]
    of_labels = [each for each, found in methods.items() if found.takes_labels()]
    if method not in methods:
        base, plus, wrong = method.partition("+")
        if plus and base in methods:
            hint = did_you_mean(wrong, READOUTS)
            raise UserError(f"arms: {name} must have a readout of {', '.join(READOUTS)}, got {wrong}{hint}")
        forms = [*(f"{each}:LABEL" for each in of_labels), "METHOD+READOUT"]
        raise UserError(f"arms must be among {', '.join([*known, *forms])}, got {name}{did_you_mean(name, known)}")
    if colon and method not in of_labels:
        raise UserError(f"arms: {name} must be without a label, {method} learns from none; {', '.join(of_labels)} do")
    arm = Arm(methods[method], label if colon else None, READOUTS[readout])
    if arm.readout.from_scratch and arm not in NAMED.values():
        raise UserError(f"arms: {name} would not read what {method} gives: random+{readout} is training from scratch")
    return arm


def expand(arms: Iterable[str], clinical: Sequence[str], given_weights: bool) -> list[str]:
    """Return the arms for a cohort with the clinical labels ``clinical``, in the order in which they are shown.

    An arm for every label takes the place of ``METHOD:each``; with ``given_weights`` the methods that are these weights
    are among them.

    Raises:
        UserError: if an arm needs a clinical label that there is not.
    """
    found: list[Arm] = []
    for arm in map(parse_arm, arms):
        found += [replace(arm, label=label) for label in clinical] if arm.label == EACH else [arm]
    if given_weights:
        found += [Arm(method) for method in registered_methods().values() if method.weights == "required"]
    for arm in found:
        if arm.label is not None and arm.label not in clinical:
            known = ", ".join(clinical) or "none"
            hint = did_you_mean(arm.label, clinical)
            raise UserError(f"the arm {arm.name} must name a clinical label of {known}{hint}")
        if not clinical and (arm.method.takes_labels() or arm.readout.adds_values):
            raise UserError(f"the arm {arm.name} needs clinical labels: name some with data.clinical, or leave it out")
    ordered = sorted(set(found), key=lambda arm: arm.place(SHOWN, clinical))
    return [arm.name for arm in ordered]


def subject_of(arms: Sequence[Arm], baseline: str | None) -> Arm:
    """Return the arm that a comparison is about: a proposed method with all labels, if there is one."""

    def key(arm: Arm) -> tuple[int, bool, int]:
        return SUBJECTS.index(arm.role), arm.label is not None, arms.index(arm)

    ordered = sorted(arms, key=key)
    return next((arm for arm in ordered if arm.name != baseline), ordered[0])


def baseline_of(arms: Sequence[Arm]) -> Arm | None:
    """Return the arm that the others are compared with where none is named; None for a single arm."""
    subject = subject_of(arms, None)
    others = [arm for arm in arms if arm != subject]
    return min(others, key=lambda arm: arm.place(BASELINES)) if others else None
