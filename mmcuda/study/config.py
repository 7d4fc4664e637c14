"""The options of a study. The text below a field is its help on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from mmcuda.data.augment import Augment
from mmcuda.data.config import DataConfig
from mmcuda.errors import UserError, check_range, did_you_mean
from mmcuda.methods import Methods
from mmcuda.study.arms import EACH, baseline_of, expand, parse_arm
from mmcuda.train.config import EncoderConfig, EvaluateConfig, PretrainConfig
from mmcuda.train.finetune_config import FinetuneConfig

# a finished cell depends on none of these
MAY_GROW = {"arms", "baseline", "seeds", "processes", "evaluate.label_fractions", "methods."}


def from_scratch() -> FinetuneConfig:
    """Return the defaults of the supervised arm: all layers learn alike, as none of them knows anything yet."""
    return FinetuneConfig(mode="full", epochs=12, learning_rate=3e-3, head_learning_rate=3e-3, layer_decay=1.0)


def all_weights() -> FinetuneConfig:
    """Return the defaults of the arms that fine-tune a pretrained encoder."""
    return FinetuneConfig(mode="full")


@dataclass(frozen=True)
class StudyConfig:
    """A study: arms x label fractions x seeds, each cell scored on the same test patients."""

    arms: tuple[str, ...] = (
        "random",
        "simclr",
        "supervised",
        "clinical-input",
        "shuffled",
        "clinical:each",
        "clinical",
    )
    """What to compare, METHOD[:LABEL][+READOUT]: random, imagenet (the weights of --encoder.weights or
    --encoder.pretrained; it joins by itself where they are given), simclr, supervised (from scratch), clinical-input
    (the clinical values beside simclr's features at the classifier), shuffled, clinical (all labels), clinical:LABEL,
    clinical:each (every label alone). METHOD+finetune fine-tunes all weights, METHOD+values adds the clinical values;
    otherwise a linear probe reads the frozen encoder."""
    baseline: str | None = None
    """The arm with which the others are compared in pairs; by default simclr, imagenet or random, if it is there."""
    seeds: int = 3
    """Number of seeds of every arm."""
    first_seed: int = 0
    """The first seed; the others follow."""
    processes: int = 1
    """Cells computed at a time, each by a process with its share of the threads."""
    data: DataConfig = field(default_factory=DataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    augment: Augment = field(default_factory=Augment)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    start: Literal["scratch", "weights"] = "scratch"
    """Where encoder weights are given: methods that train begin with random weights all the same (scratch), so that
    arms differ in their method alone, or with these weights."""
    methods: Methods = field(default_factory=dict)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    supervised: FinetuneConfig = field(default_factory=from_scratch)
    finetune: FinetuneConfig = field(default_factory=all_weights)

    def __post_init__(self) -> None:
        if not self.arms or len(set(self.arms)) < len(self.arms):
            raise UserError(f"--arms must be one or more different names, got {list(self.arms)}")
        arms = [parse_arm(arm) for arm in self.arms]
        for arm in arms:
            if arm.method.weights == "required" and not self.encoder.starts_trained:
                raise UserError(f"the arm {arm.name} needs --encoder.weights FILE, or --encoder.pretrained true")
        own = {arm.method.shares_options_with() for arm in arms}  # with what an arm's method is a control of
        defaults = {method.name: method() for method in own}
        object.__setattr__(self, "methods", dict(sorted((defaults | self.methods).items())))
        if self.baseline and parse_arm(self.baseline).label == EACH:
            raise UserError(f"--baseline must be one arm, got {self.baseline}")
        check_range("--seeds", self.seeds, 1)
        check_range("--first_seed", self.first_seed, 0)
        check_range("--processes", self.processes, 1)
        default = FinetuneConfig()
        of_the_study = {
            "label_fraction": "--evaluate.label_fractions",
            "seed": "--seeds",
            "bootstrap": "--evaluate.bootstrap",
            "precision": "--pretrain.precision",
            "folds": "the test patients",
        }
        for trained in ("supervised", "finetune"):
            options: FinetuneConfig = getattr(self, trained)
            for name, given_by in of_the_study.items():
                if getattr(options, name) != getattr(default, name):
                    raise UserError(f"--{trained}.{name} has no meaning in a study, where {given_by} takes its place")
            if options.mode != "full":
                raise UserError(f"--{trained}.mode must be full, to train all weights, got {options.mode}")

    def with_labels(self, clinical: list[str]) -> StudyConfig:
        """Return the study with its arms spelt out for a cohort of these clinical labels.

        Raises:
            UserError: if an arm names another label, or the baseline is not among the arms.
        """
        arms = expand(self.arms, clinical, self.encoder.starts_trained)
        baseline = parse_arm(self.baseline) if self.baseline else baseline_of([parse_arm(arm) for arm in arms])
        name = baseline.name if baseline else None
        if name and name not in arms:
            raise UserError(
                f"--baseline must be among the arms {', '.join(arms)}, got {name}{did_you_mean(name, arms)}"
            )
        return replace(self, arms=tuple(arms), baseline=name)

    @property
    def all_seeds(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)


@dataclass(frozen=True)
class TrainConfig(StudyConfig):
    """The study of ``mmcuda train``: what clinical pretraining is worth, with one seed."""

    arms: tuple[str, ...] = ("random", "simclr", "shuffled", "clinical")
    """What to compare, METHOD[:LABEL][+READOUT]; `mmcuda study --help` tells them all."""
    seeds: int = 1
    """Number of seeds of every arm; tables show the standard deviation over them."""
    start: Literal["scratch", "weights"] = "weights"
    """Where encoder weights are given: methods that train begin with these weights, or with random ones (scratch)."""
