"""What a kind of target is: how it is read, learnt, predicted and scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.float32]  # of a target: a class (0, 1, ...) or a number; NaN = no label
INVERSE_REGULARISATION = 0.01  # C of scikit-learn: strong, since labels are few


class Metric(NamedTuple):
    """A number that says how good predictions are."""

    label: str  # in tables and figures
    has_unit: bool = False  # of the target, so that a mean over targets would mean nothing


class Cells(Protocol):
    """The cells of one column of a table, and where to say what is wrong with them."""

    def texts(self) -> pd.Series:
        """Return the cells, [N], "" where they are missing."""

    def numbers(self) -> Floats:
        """Return the cells as numbers, [N], NaN where they are missing; every other cell is an error."""

    def reject(self, bad: npt.NDArray[np.bool_], explain: Callable[[str], str]) -> None:
        """Make an error of every cell where ``bad`` [N] is true; ``explain`` turns the cell into the message."""

    def fail(self, message: str) -> None:
        """Make an error of the column as a whole."""


@dataclass(frozen=True)
class Target(ABC):
    """One target. A subclass is a kind; a kind to come (survival: time and event) is one more of them.

    A model has ``logits`` numbers for it, from which ``activate`` makes ``outputs`` predictions.
    """

    kind: ClassVar[str]
    metrics: ClassVar[dict[str, Metric]]  # with bootstrap intervals; the first is the primary one
    points: ClassVar[dict[str, Metric]] = {}  # without intervals
    has_thresholds: ClassVar[bool] = False  # decisions are taken at a threshold that is chosen on held-out images

    classes: tuple[str, ...] = ()

    @classmethod
    def primary(cls) -> str:
        """Return the metric that curves and paired differences show; the higher the better."""
        return next(iter(cls.metrics))

    @property
    @abstractmethod
    def logits(self) -> int:
        """Numbers that the model has for it."""

    @property
    def outputs(self) -> int:
        """Columns of its predictions."""
        return len(self.columns(""))

    @abstractmethod
    def columns(self, name: str) -> list[str]:
        """Return the names of its predictions, for a target called ``name``."""

    @classmethod
    @abstractmethod
    def read(cls, cells: Cells, order: tuple[str, ...] = ()) -> tuple[Self, Values]:
        """Return the target that a column holds, and its values [N].

        Args:
            cells: of the column; a bad one is an error and has no label.
            order: the classes, where the user gives them.
        """

    def fitted(self, values: Values) -> Self:
        """Return the target with what it has to know of the training labels [n]."""
        return self

    def can_learn(self, values: Values) -> bool:
        """Return whether the training labels [n] differ."""
        return len(np.unique(values[np.isfinite(values)])) > 1

    def class_weights(self, values: Values) -> Floats:
        """Return weights [C] under which all classes of the training labels [n] weigh alike."""
        counts = np.array([(values == label).sum() for label in range(len(self.classes))])
        present = np.maximum((counts > 0).sum(), 1)
        return np.asarray(counts.sum() / (present * np.maximum(counts, 1)))

    @abstractmethod
    def loss(self, logits: Tensor, values: Tensor, class_weights: Tensor | None, focal_gamma: float) -> Tensor:
        """Return the loss of every image, [B].

        Args:
            logits: [B, logits].
            values: [B], all known.
            class_weights: [C]; None: all images weigh alike.
            focal_gamma: exponent of the focal loss; 0 is none. Kinds without classes know neither.
        """

    @abstractmethod
    def activate(self, logits: Floats) -> Floats:
        """Return the predictions [n, outputs] for ``logits`` [n, logits]."""

    @abstractmethod
    def activate_tensor(self, logits: Tensor) -> Tensor:
        """Return what ``activate`` does, in PyTorch, for programs that run an export."""

    @abstractmethod
    def fit(self, features: Floats, values: Values, balanced: bool) -> tuple[Floats, Floats]:
        """Fit the linear probe: weight [logits, F] and bias [logits] of standardised ``features`` [n, F].

        Args:
            features: [n, F].
            values: [n], all known, of more than one value.
            balanced: let all classes weigh alike.
        """

    def shift(self, values: Values, part: Values) -> Floats | float:
        """Return what the bias of a probe of the labels ``part`` lacks to one of all labels ``values``; here nothing.

        A fold rich in one class leaves a rest that is poor in it, whose probe would score the fold too low.
        """
        return 0.0

    @abstractmethod
    def scores(self, predictions: Floats, values: Values, weights: Floats) -> dict[str, Floats]:
        """Return each of ``metrics`` under every weighting of the images, [R]; NaN where it is undefined.

        Args:
            predictions: [n, outputs].
            values: [n], all known.
            weights: [R, n], not negative.
        """

    def point_scores(self, predictions: Floats, values: Values, thresholds: Floats) -> dict[str, float]:
        """Return each of ``points``; ``thresholds`` [n] are NaN where none was chosen."""
        return {}

    def of_group(self, values: pd.api.typing.DataFrameGroupBy) -> pd.DataFrame:
        """Return the label of groups of images: here the highest of its images'."""
        return values.max()

    def title(self, name: str, value: float) -> str:
        """Return what the title of an image says of its label, if anything."""
        return "" if np.isnan(value) else f"{name} {self.written(np.array([value]))[0]}"

    def written(self, values: Floats | Values) -> npt.NDArray[Any]:
        """Return values [n] as tables show them: here as they are."""
        return values

    def counts(self, values: Values) -> dict[str, float]:
        """Return what there is to count of labels [n], by its name in words."""
        found = {name: int((values == label).sum()) for label, name in enumerate(self.classes)}
        return {**found, "unlabelled": int(np.isnan(values).sum())}

    def lacking(self, values: Values) -> list[str]:
        """Return the classes that labels [n] lack, in words; ["label"] if there is no label."""
        if np.isnan(values).all():
            return ["label"]
        return [name for label, name in enumerate(self.classes) if not (values == label).any()]

    def problem(self, values: Values) -> str | None:
        """Return what is wrong with values [N] that code has made, if anything."""
        strange = values[np.isfinite(values) & ~np.isin(values, range(len(self.classes)))]
        wanted = ", ".join(map(str, range(len(self.classes))))
        return f"must be {wanted} or NaN, got {strange[0]:g}" if len(strange) else None

    def as_json(self) -> dict[str, Any]:
        """Return what makes it again."""
        return {"kind": self.kind} | {name: value for name, value in asdict(self).items() if value != ()}


def logistic(features: Floats, values: Values, balanced: bool) -> LogisticRegression:
    """Fit a logistic regression, multinomial for more than two classes."""
    from sklearn.linear_model import LogisticRegression  # a second to import

    model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000, class_weight="balanced" if balanced else None)
    return model.fit(features, values)
