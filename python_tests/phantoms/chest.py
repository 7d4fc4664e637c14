"""Chest radiographs, rendered: thorax, lungs, heart and ribs, the findings drawn into them, and what disturbs.

Coordinates run from -1 to 1 across the image, y down.
"""

from dataclasses import dataclass

import numpy as np

ENLARGED = 0.52  # heart over chest, both across, from which the heart counts as enlarged
FINDINGS = ("Pleural Effusion", "Cardiomegaly", "Lung Opacity", "Edema", "Atelectasis", "Pneumothorax")


@dataclass(frozen=True)
class Body:
    """What stays the same over the studies of one patient."""

    width: float  # half width of the chest
    height: float  # of the lungs
    fat: float  # brightness of the soft tissue
    ribs: int
    rib_phase: float
    heart: float  # half width of the heart over that of the chest
    frailty: float  # 0..1, how ill the patient tends to be


@dataclass(frozen=True)
class Study:
    """The state of a patient on one day."""

    body: Body
    effusion: tuple[float, float]  # height above the base at the left and the right, as a share of the lung
    opacities: np.ndarray  # [n, 4] x, y, radius, brightness
    edema: float
    bands: np.ndarray  # [n, 3] x, y, half width: collapsed lung
    collapse: float  # width of the air beside the left lung, 0 = none
    devices: bool

    @property
    def findings(self) -> dict[str, bool]:
        """Which of the labels hold."""
        found = {
            "Pleural Effusion": max(self.effusion) > 0.05,
            "Cardiomegaly": self.body.heart > ENLARGED,
            "Lung Opacity": len(self.opacities) > 0,
            "Edema": self.edema > 0.12,
            "Atelectasis": len(self.bands) > 0,
            "Pneumothorax": self.collapse > 0,
        }
        return found | {"No Finding": not any(found.values()), "Support Devices": self.devices}


def draw_body(rng: np.random.Generator) -> Body:
    """Draw a patient at random."""
    return Body(
        width=rng.normal(0.78, 0.05),
        height=rng.normal(0.72, 0.05),
        fat=rng.uniform(0.45, 0.75),
        ribs=int(rng.integers(7, 10)),
        rib_phase=rng.uniform(0, 1),
        heart=float(np.clip(rng.normal(0.49, 0.07), 0.36, 0.7)),
        frailty=rng.beta(1.2, 1.5),
    )


def draw_study(body: Body, rng: np.random.Generator) -> Study:
    """Draw a study at random; findings are more likely and larger in the frail."""
    ill = float(np.clip(body.frailty + rng.normal(0, 0.15), 0, 1))

    def share(chance: float) -> bool:
        return bool(rng.random() < chance * ill)

    spots = int(rng.integers(1, 5)) if share(0.7) else 0
    bands = int(rng.integers(1, 3)) if share(0.5) else 0
    effusion = share(0.8)
    return Study(
        body=body,
        effusion=(effusion * rng.uniform(0.1, 0.5), effusion * (rng.random() < 0.5) * rng.uniform(0.1, 0.5)),
        opacities=np.column_stack(
            (
                rng.choice([-0.42, 0.42], spots) + rng.normal(0, 0.1, spots),
                rng.uniform(-0.5, 0.3, spots),
                rng.uniform(0.07, 0.2, spots),
                rng.uniform(0.2, 0.4, spots),
            )
        ),
        edema=rng.uniform(0.15, 0.35) if share(0.5) else 0.0,
        bands=np.column_stack((rng.choice([-0.42, 0.42], bands), rng.uniform(0, 0.4, bands), np.full(bands, 0.2))),
        collapse=rng.uniform(0.1, 0.25) if share(0.15) else 0.0,
        devices=share(0.8),
    )


def render_radiograph(study: Study, view: str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Render a study from one view (PA, AP, or another, taken as lateral), uint8 [height, width].

    ``size`` is width, height. The random numbers are those of the exposure alone.
    """
    width, height = size
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * rng.uniform(0.95, 1.1) + rng.normal(0, 0.04)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * rng.uniform(0.95, 1.1) + rng.normal(0, 0.04)
    x = x + rng.normal(0, 0.04) * y  # the patient leans
    image = _frontal(study, x, y, view == "AP") if view in ("PA", "AP") else _lateral(study, x, y)
    image = image * rng.uniform(0.75, 1.2) + rng.normal(0, 0.06)
    image += rng.uniform(0.02, 0.06) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(255 * image, 0, 255).astype(np.uint8)


def _soft(inside: np.ndarray, width: float = 0.04) -> np.ndarray:
    """Return 0 outside, 1 inside, with a rim; ``inside`` is the distance to the rim."""
    return np.clip(inside / width + 0.5, 0, 1)


def _frontal(study: Study, x: np.ndarray, y: np.ndarray, magnified: bool) -> np.ndarray:
    body = study.body
    image = body.fat * _soft(body.width + 0.12 - np.hypot(x, 0.35 * y))
    image = np.maximum(image, 0.85 * _soft(0.09 - abs(x)))  # spine
    half, middle = 0.5 * body.width - 0.03, 0.5 * body.width + 0.05
    for side, effusion in zip((-1, 1), study.effusion, strict=True):
        across = (x - side * middle) / half
        lung = _soft(1 - np.hypot(across, (y + 0.05) / body.height), 0.08)
        base = body.height - 0.05 - 2 * body.height * effusion - 0.15 * across**2 * (effusion > 0)  # a meniscus
        aerated = lung * _soft(base - y, 0.06)
        image -= 0.45 * aerated
        image += study.edema * aerated * np.exp(-((across + side * 0.5) ** 2))  # from the hilum
        if study.collapse and side < 0:
            air = lung * _soft(-across - 1 + 2.5 * study.collapse, 0.05)
            image -= 0.15 * air
        ribs = np.cos(2 * np.pi * (body.ribs * (y + 0.3 * across**2) / 2 + body.rib_phase))
        image += 0.08 * lung * (ribs > 0.5)
    heart = body.heart * body.width * (1.08 if magnified else 1.0)
    image = np.maximum(image, 0.8 * _soft(1 - np.hypot((x - 0.12) / heart, (y - 0.35) / 0.34), 0.1))
    for at_x, at_y, radius, level in study.opacities:
        image += level * np.exp(-(((x - at_x) ** 2 + (y - at_y) ** 2) / radius**2))
    for at_x, at_y, reach in study.bands:
        image += 0.3 * _soft(0.02 - abs(y - at_y), 0.02) * _soft(reach - abs(x - at_x))
    if study.devices:
        image = np.maximum(image, 1.0 * _soft(0.012 - abs(x + 0.15 - 0.1 * y), 0.012) * (y < 0.1))
    return image


def _lateral(study: Study, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    body = study.body
    image = body.fat * _soft(0.7 - np.hypot(x, 0.3 * y))
    base = body.height - 0.05 - body.height * sum(study.effusion)
    lung = _soft(1 - np.hypot(x / 0.55, (y + 0.05) / body.height), 0.08) * _soft(base - y, 0.06)
    image -= (0.4 - 0.5 * study.edema) * lung
    image = np.maximum(image, 0.85 * _soft(0.08 - abs(x + 0.55 + 0.1 * y)))
    return np.maximum(image, 0.7 * _soft(1 - np.hypot((x - 0.2) / (0.7 * body.heart), (y - 0.3) / 0.3), 0.1))
