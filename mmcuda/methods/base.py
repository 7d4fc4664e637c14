"""What a pretraining method is, and the registry of methods."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal, TypeVar
from urllib.parse import quote

from torch import Tensor, nn

from mmcuda.data.augment import Augment
from mmcuda.data.cohort import Cohort
from mmcuda.errors import UserError, did_you_mean
from mmcuda.train.batches import Batch, TrainingSet

ENTRY_POINTS = "mmcuda.methods"  # group by which installed packages add methods: name = "package.module:Class"

Role = Literal["untrained", "given", "reference", "control", "proposed"]
COLUMNS = {
    "clinical": "clinical labels",
    "targets": "targets",
    "text": "columns of text",
    "tabular": "columns beside the image",
}


@dataclass(frozen=True)
class Method:
    """A way to pretrain an encoder. A subclass is a frozen dataclass whose fields are its options.

    The text below a field is its help on the command line. What a subclass must give is ``name``, ``summary`` and
    ``loss``; ``build`` and ``training_set`` where the encoder needs more than it has, or images other labels.

    Example:
        >>> @register_method
        ... @dataclass(frozen=True)
        ... class Flatness(Method):
        ...     name = "flatness"
        ...     summary = "features of two views are close, which alone teaches nothing"
        ...     weight: float = 1.0
        ...     def loss(self, model, batch):
        ...         return self.weight * model(batch.inputs["image"]).diff(dim=1).square().mean()
    """

    name: ClassVar[str]  # on the command line, in tables and file names
    summary: ClassVar[str]  # what it does, in one line of the report
    color: ClassVar[str] = "#56b4e9"  # of its curves
    marker: ClassVar[str] = "h"  # of matplotlib
    role: ClassVar[Role] = "proposed"  # in a comparison: it decides on the order, the subject and the baseline
    needs: ClassVar[tuple[str, ...]] = ()  # columns that the cohort must have, of ``COLUMNS``
    trains: ClassVar[bool] = True  # False: the encoder stays as it starts
    weights: ClassVar[Literal["never", "allowed", "required"]] = "allowed"  # to start from weights that are given

    @classmethod
    def options(cls) -> list[str]:
        """Return the names of the options."""
        return [field.name for field in fields(cls)]

    @classmethod
    def takes_labels(cls) -> bool:
        """Return whether it learns from clinical labels that its option ``labels`` chooses."""
        return "labels" in cls.options()

    @classmethod
    def shares_options_with(cls) -> type[Method]:
        """Return the method whose options it takes in a study: its own, but of a control those of what it controls."""
        return cls

    @property
    def label_names(self) -> tuple[str, ...]:
        """The clinical labels that were chosen to learn from, for a method with the option ``labels``."""
        return getattr(self, "labels", ())

    def check(self, cohort: Cohort) -> None:
        """Raise a UserError unless the cohort has what the method needs."""
        for need in self.needs:
            if not getattr(cohort.table, need):
                raise UserError(f"{self.name} pretraining needs {COLUMNS[need]}, got none: name some with data.{need}")

    def build(self, encoder: nn.Module, cohort: Cohort) -> nn.Module:
        """Return the model that is trained: any module with the encoder as its ``encoder``.

        Args:
            encoder: images [B, C, H, W] in 0..1 to features [B, F].
            cohort: that it will be trained on.
        """
        return _Bare(encoder)

    def training_set(self, cohort: Cohort, augment: Augment, seed: int) -> TrainingSet:
        """Return the images to train on, their labels, views and batches; by default two views of each, no labels."""
        return TrainingSet(cohort, cohort.train, {}, augment, views=2)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            model: as ``build`` made it, perhaps wrapped by distributed training; to be called once.
            batch: of ``training_set``.
        """
        raise NotImplementedError(f"{self.name} does not train")

    def after_step(self, model: nn.Module) -> None:
        """Update what no gradient does, such as a momentum encoder, in the model as ``build`` made it."""


class _Bare(nn.Module):
    """An encoder and nothing on it: views [B, V, C, H, W] to features [B, V, F]."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, views: Tensor) -> Tensor:
        features: Tensor = self.encoder(views.flatten(0, 1))
        return features.view(*views.shape[:2], -1)


AnyMethod = TypeVar("AnyMethod", bound=Method)
Methods = dict[str, Method]  # by name
_methods: dict[str, type[Method]] = {}


def register_method(method: type[AnyMethod]) -> type[AnyMethod]:
    """Add a class to the methods that commands and studies know; a decorator.

    Raises:
        TypeError: if the class is not a Method with a name.
        ValueError: if another class has the name.
    """
    if not issubclass(method, Method) or not getattr(method, "name", None):
        raise TypeError(f"a method must be a subclass of Method with a name, got {method.__name__}")
    known = _methods.setdefault(method.name, method)
    if (known.__module__, known.__qualname__) != (method.__module__, method.__qualname__):
        raise ValueError(f"{method.__name__} must have another name than {known.__name__}, got {method.name}")
    _methods[method.name] = method
    return method


@cache
def _load_entry_points() -> None:
    for entry in entry_points(group=ENTRY_POINTS):
        register_method(entry.load())


def registered_methods() -> dict[str, type[Method]]:
    """Return the methods by name, those of other packages last."""
    _load_entry_points()
    return dict(_methods)


def get_method(name: str) -> type[Method]:
    """Return the method of a name.

    Raises:
        UserError: if there is none.
    """
    methods = registered_methods()
    if name not in methods:
        raise UserError(f"method must be one of {', '.join(methods)}, got {name}{did_you_mean(name, methods)}")
    return methods[name]


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """Return a method with options.

    Raises:
        UserError: if there is no such method, or an option is unknown or out of range.
    """
    check_options(name, options)
    return get_method(name)(**options)


def check_options(name: str, options: Iterable[str], of_the_arm: Collection[str] = ()) -> None:
    """Raise a UserError if one of ``options`` is none of the method ``name``; it tells whose it is.

    Args:
        name: of the method.
        options: their names.
        of_the_arm: options that the arms of a study choose.
    """
    known = get_method(name).options()
    for option in options:
        if option in of_the_arm and option in known:
            raise UserError(f"{name}: an arm of a study chooses its {option} itself: {name}:LABEL")
        if option not in known:
            owners = [other for other, method in registered_methods().items() if option in method.options()]
            whose = f": it is an option of {' and '.join(owners)}" if owners else did_you_mean(option, known)
            raise UserError(f"{name} has no option {option}{whose}")


def encoder_name(method: str, labels: Iterable[str], seed: int) -> str:
    """Return the name of an encoder's logs and checkpoint; labels are quoted, since they may hold any character."""
    return "-".join([method, *(quote(label, safe=" ") for label in labels), f"seed{seed}"])
