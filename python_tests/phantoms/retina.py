"""Optical coherence tomography of a retina, rendered: layers, fluid, bright foci, and what disturbs the picture.

Lengths are in micrometres: x across the scan, y across the scans of a visit, z down. A scan shows 6,000 x 1,920.
"""

from dataclasses import dataclass, field

import numpy as np

WIDTH, DEPTH = 6000.0, 1920.0
THICKENED = 60.0  # swelling from which a scan counts as thickened
CENTRE = 500.0  # radius of the central subfield

# Brightness by relative depth: 0 is the inner limiting membrane, 1 the lower edge of the pigment epithelium.
LAYERS = (
    (0.10, 0.72),  # nerve fibres
    (0.28, 0.46),  # ganglion cells
    (0.38, 0.54),  # inner plexiform
    (0.48, 0.28),  # inner nuclear
    (0.54, 0.52),  # outer plexiform
    (0.81, 0.20),  # outer nuclear
    (0.87, 0.82),  # ellipsoid zone
    (0.92, 0.34),
    (1.00, 1.00),  # pigment epithelium
)
VITREOUS, FLUID = 0.03, 0.05
STEPS = 256  # of the brightness table, per retinal thickness


@dataclass(frozen=True)
class Eye:
    """What stays the same over the visits of one eye."""

    thickness: float  # beside the fovea
    pit: float  # depth of the fovea
    fovea: float  # x of its centre
    tilt: float
    curvature: float
    contrast: float  # of the layers
    vessels: np.ndarray  # [n, 2] x and half width of the shadows
    severity: float  # 0..1
    rare: str  # one rare finding that this eye shows, or ""


@dataclass(frozen=True)
class Visit:
    """The state of an eye on one day. Lesions are placed in the whole volume; a scan shows those that it cuts."""

    eye: Eye
    swelling: tuple[float, float, float]  # height, x, y of the thickened area
    pockets: np.ndarray  # [n, 6] x, y, relative depth, half axes in x, y and z: fluid within the retina
    domes: np.ndarray  # [n, 4] x, y, half width, height: fluid under the retina
    foci: np.ndarray  # [n, 3] x, y, relative depth
    bleedings: np.ndarray  # [n, 4] x, y, relative depth, half width
    debris: np.ndarray  # [n, 3] x, y, height above the retina
    vitreous: str  # "full" (attached), "partial" or "none"
    gap: float  # half width of the hole in the ellipsoid zone, 0 = whole
    membrane: bool  # tissue on the retina
    shift: float  # z of the retina in the picture
    gain: float
    noise: float

    def thickness(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the retina's thickness."""
        eye = self.eye
        thinning = 0.72 if eye.rare == "atrophy" else 1.0
        pit = eye.pit * np.exp(-((x - eye.fovea) ** 2 + y**2) / (2 * 420.0**2))
        return thinning * eye.thickness - pit + self.swollen(x, y)

    def swollen(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return by how much fluid thickens the retina."""
        height, at_x, at_y = self.swelling
        return height * np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * 1100.0**2))

    @property
    def central_thickness(self) -> float:
        """Mean thickness within 500 micrometres of the fovea (CST)."""
        x, y = np.meshgrid(np.linspace(-CENTRE, CENTRE, 21), np.linspace(-CENTRE, CENTRE, 21))
        inside = x**2 + y**2 <= CENTRE**2
        return float(self.thickness(x + self.eye.fovea, y)[inside].mean())


@dataclass
class Findings:
    """The biomarkers of one scan: whatever was drawn."""

    drawn: set[str] = field(default_factory=set)

    def add(self, name: str, present: bool = True) -> bool:
        """Note a finding that is present; return ``present``."""
        if present:
            self.drawn.add(name)
        return present


RARE = ("atrophy", "dril", "vmt", "rpe", "ped", "shrm", "bleeding")


def draw_eye(rng: np.random.Generator) -> Eye:
    """Draw an eye at random; three in ten show a rare finding."""
    count = rng.integers(3, 8)
    return Eye(
        thickness=rng.normal(330, 14),
        pit=rng.normal(85, 12),
        fovea=rng.normal(0, 200),
        tilt=rng.normal(0, 0.03),
        curvature=rng.normal(6e-6, 7e-6),
        contrast=rng.uniform(0.6, 1.0),
        vessels=np.column_stack((rng.uniform(-2900, 2900, count), rng.uniform(25, 70, count))),
        severity=rng.beta(1.1, 1.4),
        rare=str(rng.choice(RARE)) if rng.random() < 0.3 else "",
    )


def draw_visit(eye: Eye, progress: float, rng: np.random.Generator) -> Visit:
    """Draw a visit at random; fluid goes back on average as ``progress`` runs from 0, the first visit, to 1."""
    fluid = float(np.clip(eye.severity * (1.1 - 0.6 * progress) + rng.normal(0, 0.18), 0, 1))
    x, y = eye.fovea + rng.normal(0, 350), rng.normal(0, 350)
    pockets = rng.poisson(16 * fluid) if fluid > 0.15 else 0
    domes = int(fluid > 0.35 and rng.random() < 0.35)
    foci = rng.poisson(70 * np.clip(0.7 * fluid + rng.normal(0.08, 0.1), 0, 1))
    bleedings = rng.poisson(5) if eye.rare == "bleeding" else 0
    debris = rng.poisson(25) if rng.random() < 0.35 else 0
    return Visit(
        eye=eye,
        swelling=(330 * fluid, x, y),
        pockets=np.column_stack(
            (
                rng.normal(x, 800, pockets),
                rng.normal(y, 900, pockets),
                rng.choice([0.42, 0.66], pockets) + rng.normal(0, 0.03, pockets),
                rng.uniform(90, 330, pockets),
                rng.uniform(300, 900, pockets),
                rng.uniform(30, 80, pockets) * (0.7 + 0.6 * fluid),
            )
        ),
        domes=np.column_stack(
            (
                rng.normal(x, 500, domes),
                rng.normal(y, 300, domes),
                rng.uniform(500, 1000, domes),
                rng.uniform(60, 150, domes),
            )
        ),
        foci=np.column_stack((rng.normal(x, 1400, foci), rng.normal(y, 1500, foci), rng.uniform(0.15, 0.78, foci))),
        bleedings=np.column_stack(
            (
                rng.normal(0, 1500, bleedings),
                rng.normal(0, 1200, bleedings),
                rng.uniform(0.08, 0.3, bleedings),
                rng.uniform(80, 220, bleedings),
            )
        ),
        debris=np.column_stack(
            (rng.uniform(-2900, 2900, debris), rng.uniform(-3000, 3000, debris), rng.uniform(80, 420, debris))
        ),
        vitreous=str(rng.choice(["full", "partial", "none"], p=[0.52, 0.33, 0.15])),
        gap=float(rng.uniform(300, 900)) if fluid > 0.5 and rng.random() < 0.6 else 0.0,
        membrane=bool(rng.random() < 0.08),
        shift=rng.normal(0, 90),
        gain=rng.uniform(0.65, 1.3),
        noise=rng.uniform(0.25, 0.5),
    )


def letters(visit: Visit, rng: np.random.Generator) -> int:
    """Return the visual acuity in letters (BCVA): fluid, a hole in the ellipsoid zone and atrophy cost letters."""
    loss = 40 * visit.swelling[0] / 330 + 10 * (visit.gap > 0) + 8 * (visit.eye.rare == "atrophy")
    return int(np.clip(round(88 - loss + rng.normal(0, 2.5)), 27, 100))


def render_scan(
    visit: Visit, y: float, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, frozenset[str]]:
    """Render the scan at ``y`` and return it, uint8 [height, width], with its findings.

    ``size`` is width, height. The random numbers are those of the camera alone: noise, and a slight tilt of the head.
    """
    width, height = size
    found = Findings()
    x = ((np.arange(width) + 0.5) / width - 0.5).astype(np.float32) * WIDTH
    z = ((np.arange(height) + 0.5) / height).astype(np.float32)[:, None] * DEPTH
    eye = visit.eye

    floor = 1180 + visit.shift + (eye.tilt + rng.normal(0, 0.02)) * x + eye.curvature * x**2
    thickness = visit.thickness(x, np.float32(y))
    found.add("DRT/ME", bool(visit.swollen(x, np.float32(y)).max() > THICKENED))
    found.add("Atrophy / thinning of retinal layers", eye.rare == "atrophy")
    if found.add("VMT", eye.rare == "vmt" and abs(y) < 900):
        thickness = thickness + 110 * np.exp(-(((x - eye.fovea) / 260) ** 2))  # the vitreous pulls the fovea up
    if found.add("PED (serous)", eye.rare == "ped" and abs(y) < 1500):
        floor = floor - 140 * np.maximum(1 - ((x - eye.fovea - 900) / 700) ** 2, 0)
    top = floor - thickness
    depth = (z - top) / thickness

    image = _brightness_table(eye.contrast)[np.clip((depth + 1) * STEPS, 0, 4 * STEPS - 1).astype(np.int32)]
    _disturb_layers(image, visit, x, y, depth, found)
    _draw_lesions(image, visit, x, z, y, top, thickness, found)
    _draw_vitreous(image, visit, x, z, y, top, found)

    shadow = np.ones_like(x)
    for at, half in eye.vessels:
        shadow *= 1 - 0.6 * np.exp(-(((x - at) / half) ** 2))
    image = np.where(depth > 0.1, image * shadow, image) * visit.gain * rng.uniform(0.85, 1.15)
    image += (visit.noise * image + 0.03) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(200 * image + 12, 0, 255).astype(np.uint8), frozenset(found.drawn)


def _brightness_table(contrast: float) -> np.ndarray:
    """Return the brightness at relative depths -1..3 in steps of 1 / STEPS."""
    depth = (np.arange(4 * STEPS) + 0.5) / STEPS - 1
    edges, levels = np.array(LAYERS).T
    inside = 0.45 + contrast * (levels[np.minimum(np.searchsorted(edges, depth), len(levels) - 1)] - 0.45)
    choroid = 0.5 * np.exp(-np.maximum(depth - 1, 0) / 0.5)
    table = np.select([depth < 0, depth <= 1], [VITREOUS, inside], choroid)
    return np.convolve(table, np.ones(7) / 7, mode="same").astype(np.float32)


def _disturb_layers(
    image: np.ndarray, visit: Visit, x: np.ndarray, y: float, depth: np.ndarray, found: Findings
) -> None:
    centre = visit.eye.fovea
    half = np.sqrt(max(visit.gap**2 - y**2, 0))  # the hole is a disc
    if found.add("Disruption of EZ", half > 150):
        image[(depth > 0.81) & (depth < 0.87) & (abs(x - centre) < half)] = 0.2
    if found.add("DRIL", visit.eye.rare == "dril" and abs(y) < 1200):
        image[(depth > 0.1) & (depth < 0.54) & (abs(x - centre) < 1000)] = 0.42
    if found.add("Disruption of RPE", visit.eye.rare == "rpe" and abs(y) < 1500):
        image[(depth > 0.92) & (depth < 1) & (abs(x - centre + 700) < 300)] = 0.35
    if found.add("SHRM", visit.eye.rare == "shrm" and abs(y) < 1500):
        image[(depth > 0.8) & (depth < 0.92) & (abs(x - centre) < 600)] = 0.75


def _ellipse(
    image: np.ndarray,
    x: np.ndarray,
    z: np.ndarray,
    centre: tuple[float, float],
    axes: tuple[float, float],
    level: float,
) -> None:
    """Blend an ellipse with a soft rim into the image."""
    columns = np.flatnonzero(abs(x - centre[0]) < 1.1 * axes[0])
    rows = np.flatnonzero(abs(z[:, 0] - centre[1]) < 1.1 * axes[1])
    if len(columns) and len(rows):
        box = np.ix_(rows, columns)
        radius = np.hypot((x[columns] - centre[0]) / axes[0], (z[rows] - centre[1]) / axes[1])
        share = np.clip((1.1 - radius) / 0.2, 0, 1)
        image[box] += share * (level - image[box])


def _draw_lesions(
    image: np.ndarray,
    visit: Visit,
    x: np.ndarray,
    z: np.ndarray,
    y: float,
    top: np.ndarray,
    thickness: np.ndarray,
    found: Findings,
) -> None:
    def at_depth(at: float, relative: float) -> tuple[float, float]:
        column = int(np.clip(np.searchsorted(x, at), 0, len(x) - 1))
        return at, float(top[column] + relative * thickness[column])

    for at, at_y, relative, rx, ry, rz in visit.pockets:
        cut = np.sqrt(max(1 - ((y - at_y) / ry) ** 2, 0))
        if found.add("Fluid (IRF)", cut > 0.3 and abs(at) < WIDTH / 2):
            _ellipse(image, x, z, at_depth(at, relative), (rx * cut, rz * cut), FLUID)
    for at, at_y, rx, tall in visit.domes:
        cut = np.sqrt(max(1 - ((y - at_y) / rx) ** 2, 0))
        if found.add("Fluid (SRF)", cut > 0.3):
            _ellipse(image, x, z, at_depth(at, 0.9), (rx * cut, tall * cut / 2), FLUID)
    for at, at_y, relative, half in visit.bleedings:
        if found.add("IR hemorrhages", abs(y - at_y) < 300 and abs(at) < WIDTH / 2):
            _ellipse(image, x, z, at_depth(at, relative), (half, 35), 0.95)
    for at, at_y, relative in visit.foci:
        if found.add("IR HRF", abs(y - at_y) < 150 and abs(at) < WIDTH / 2):
            _ellipse(image, x, z, at_depth(at, relative), (28, 18), 1.15)


def _draw_vitreous(
    image: np.ndarray, visit: Visit, x: np.ndarray, z: np.ndarray, y: float, top: np.ndarray, found: Findings
) -> None:
    if found.add("Partially attached vitreous face", visit.vitreous == "partial"):
        lift = np.minimum(260.0, 0.16 * np.maximum(abs(x - visit.eye.fovea) - 500, 0))
        image[(abs(z - (top - 12 - lift)) < 8) & (lift > 20)] = 0.3
    elif not found.add("Fully attached vitreous face", visit.vitreous == "full"):
        image[abs(z - (top - 330)) < 8] = 0.25
    if found.add("Preretinal tissue/hemorrhage", visit.membrane and abs(y) < 2000):
        image[(top - z < 45) & (top - z > 0) & (abs(x - visit.eye.fovea - 1000) < 900)] = 0.8
    for at, at_y, above in visit.debris:
        if found.add("Vitreous debris", abs(y - at_y) < 150):
            column = int(np.clip(np.searchsorted(x, at), 0, len(x) - 1))
            _ellipse(image, x, z, (at, float(top[column] - above)), (30, 20), 0.6)
