"""The options of a study. The text below a field is its help on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mmcuda.data.augment import Augment
from mmcuda.data.config import DataConfig
from mmcuda.errors import UserError, did_you_mean
from mmcuda.study.arms import ARMS, EACH, ONE_LABEL, expand
from mmcuda.train.config import EncoderConfig, EvaluateConfig, PretrainConfig, check_range
from mmcuda.train.finetune_config import FinetuneConfig

MAY_GROW = {"arms", "baseline", "seeds", "processes", "evaluate.label_fractions"}  # a finished cell depends on none


def from_scratch() -> FinetuneConfig:
    """Return the defaults of the supervised arm: all layers learn alike, as none of them knows anything yet."""
    return FinetuneConfig(mode="full", epochs=12, learning_rate=3e-3, head_learning_rate=3e-3, layer_decay=1.0)


@dataclass(frozen=True)
class StudyConfig:
    """A study: arms x label fractions x seeds, each cell scored on the same test patients."""

    arms: tuple[str, ...] = ("random", "simclr", "supervised", "clinical-input", "shuffled", EACH, "clinical")
    """What to compare: random, imagenet (the weights of --encoder.weights or --encoder.pretrained; it joins by itself
    where they are given), simclr, supervised (from scratch), clinical-input (the clinical values beside simclr's
    features at the classifier), shuffled, clinical (all labels), clinical:LABEL, clinical:each (every label alone)."""
    baseline: str = "simclr"
    """The arm with which the others are compared in pairs."""
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
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    supervised: FinetuneConfig = field(default_factory=from_scratch)

    def __post_init__(self) -> None:
        if not self.arms or len(set(self.arms)) < len(self.arms):
            raise UserError(f"--arms must be one or more different names, got {list(self.arms)}")
        for arm in self.arms:
            if arm not in ARMS and not arm.startswith(ONE_LABEL):
                known = [*ARMS, f"{ONE_LABEL}LABEL"]
                raise UserError(f"--arms must be among {', '.join(known)}, got {arm}{did_you_mean(arm, known)}")
        if "imagenet" in self.arms and not self.encoder.starts_trained:
            raise UserError("the arm imagenet needs --encoder.weights FILE, or --encoder.pretrained true")
        if self.baseline == EACH:
            raise UserError(f"--baseline must be one arm, got {EACH}")
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
        for name, given_by in of_the_study.items():
            if getattr(self.supervised, name) != getattr(default, name):
                raise UserError(f"--supervised.{name} has no meaning in a study, where {given_by} takes its place")
        if self.supervised.mode != "full":
            raise UserError(f"--supervised.mode must be full, to train from scratch, got {self.supervised.mode}")

    def with_labels(self, clinical: list[str]) -> StudyConfig:
        """Return the study with its arms spelt out for a cohort of these clinical labels.

        Raises:
            UserError: if an arm names another label, or the baseline is not among the arms.
        """
        arms = expand(self.arms, clinical, imagenet=self.encoder.starts_trained)
        if self.baseline not in arms:
            raise UserError(
                f"--baseline must be among the arms {', '.join(arms)}, "
                f"got {self.baseline}{did_you_mean(self.baseline, arms)}"
            )
        return replace(self, arms=tuple(arms))

    @property
    def all_seeds(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)
