"""Cases of compare.py: shapes, relations, variants, special inputs."""

from dataclasses import dataclass


@dataclass
class Case:
    """One call of the launchers."""

    n: int = 50
    m: int = 0  # 0: self-contrast
    d: int = 24
    sets: tuple[str, ...] = ("interval",)  # interval, tolerance, gaussian, overlap; mask alone
    positives: str = "outside"
    denominator: str = "all"
    both_ways: bool = False
    self_offset: int = -1  # cross-contrast only
    temperature: float = 0.2
    margin: float = 0  # > 0: the pair margin loss
    scale: float = 1  # of normalised features
    special: str = ""  # "nan row", "near pairs", "misaligned"
    only_rows: bool = False
    reduction: str = "none"
    multiprocessors: int = 8  # few: large super-blocks and no splits
    shared_kilobytes: int = 164  # of a multiprocessor

    def name(self) -> str:
        """Describe what differs from the default."""
        changed = [f"{k}={v}" for k, v in vars(self).items() if v != getattr(Case(), k) and k not in ("n", "m", "d")]
        return " ".join([f"{self.n}x{self.m or 'self'}x{self.d}", *changed])


def cases() -> list[Case]:
    """Shapes, relations, variants, special inputs."""
    variants = [
        {"positives": p, "denominator": d}
        for p, d in [
            ("outside", "all"),
            ("inside", "all"),
            ("outside", "negatives"),
            ("inside", "negatives"),
            ("outside", "one_positive"),
        ]
    ]
    shapes = [Case(n=n, d=d) for n, d in [(1, 1), (2, 3), (7, 8), (128, 64), (129, 65), (300, 128), (270, 200)]]
    shapes += [Case(n=64, d=130), Case(n=200, d=256), Case(n=70, d=300), Case(n=96, d=520)]
    shapes += [Case(n=200, d=256, shared_kilobytes=100), Case(n=150, d=140, multiprocessors=132)]
    cross = [Case(n=33, m=70, d=40), Case(n=150, m=140, d=72, both_ways=True), Case(n=1, m=300, d=16)]
    cross += [Case(n=60, m=200, d=64, self_offset=100, both_ways=both) for both in (False, True)]
    cross += [Case(n=60, m=60, d=24, self_offset=0, only_rows=True)]
    relations = [("tolerance",), ("gaussian",), ("overlap",), ("mask",), ("interval", "gaussian", "overlap")]
    family = [Case(n=50, sets=s, **v) for s in [("interval",), *relations] for v in variants]
    family += [Case(n=52, m=78, sets=s, both_ways=True, **v) for s in [("interval",), ("mask",)] for v in variants]
    family += [Case(n=40, m=90, sets=s, self_offset=30, **variants[i % 5]) for i, s in enumerate(relations)]
    family += [Case(n=140, m=150, sets=("mask",), self_offset=-1, temperature=0.01, **variants[3])]
    large = [Case(n=140, temperature=0.01, sets=s, **v) for s in [("interval",), ("gaussian",)] for v in variants]
    margins = [
        Case(n=n, m=m, d=d, margin=1.0, sets=s, special=special)
        for n, m, d, s, special in [
            (50, 0, 24, ("interval",), ""),
            (140, 0, 70, ("gaussian",), "near pairs"),
            (40, 150, 20, ("interval", "overlap"), ""),
            (60, 0, 300, ("interval",), "near pairs"),
            (60, 60, 9, ("tolerance",), "near pairs"),
        ]
    ]
    margins += [Case(n=60, m=90, self_offset=20, d=33, margin=1.5)]
    special = [
        Case(n=60, special="nan row"),
        Case(n=60, m=70, special="nan row"),
        Case(n=40, d=64, special="misaligned"),
        Case(n=40, m=50, special="nan row", both_ways=True),
        Case(n=600, d=64),
        *(Case(n=45, reduction=r) for r in ("mean", "sum")),
        Case(n=20, m=31, reduction="mean", both_ways=True),
        Case(n=30, sets=("interval", "tolerance", "gaussian", "overlap") * 4, positives="inside"),
    ]
    shapes += [
        Case(n=1500, d=8, multiprocessors=1),
        Case(n=600, m=1300, d=8, both_ways=True, multiprocessors=1),
        Case(n=1100, d=5, sets=("tolerance",) * 3, positives="inside", multiprocessors=1),
        Case(n=300, d=40, multiprocessors=132),
        Case(n=200, d=256, shared_kilobytes=228),  # panels of the rows stay in shared memory
    ]
    return shapes + cross + family + large + margins + special


def few_cases() -> list[Case]:
    """Cases that launch every kernel that those of `cases` launch, for tools that slow kernels down a hundred times."""
    return [
        Case(n=129, d=65),
        Case(n=150, d=24, multiprocessors=132),  # partial gradients of several blocks
        Case(n=150, m=140, d=72, both_ways=True),
        Case(n=96, d=200),
        Case(n=200, d=256, shared_kilobytes=228),
        Case(n=600, d=40, multiprocessors=1),  # several tiles in a thread block
        Case(n=70, d=300),
        Case(n=140, temperature=0.01),
        Case(n=50, sets=("interval", "gaussian", "overlap"), positives="inside", denominator="negatives"),
        Case(n=52, m=78, sets=("mask",), denominator="one_positive", both_ways=True),
        Case(n=40, d=64, special="misaligned", reduction="mean"),
        Case(n=140, d=70, margin=1.0, sets=("gaussian",), special="near pairs"),
        Case(n=60, m=90, self_offset=20, d=33, margin=1.5),
    ]
