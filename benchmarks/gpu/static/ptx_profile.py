"""What an emulator counted while it ran the kernels' PTX, as a table of csrc/cuda/README.md; see `make ptx-profile`.

    python ptx_profile.py STATS..

Each file of statistics is of one call of check.py --shape, its name ending in -DTYPE-NxD.json. N is a multiple of every
tile. Counts of a tile do not depend on N, so the cycles of N = 1,024 are scaled by the number of tiles to N = 8,192,
evenly spread over a device's multiprocessors.
"""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from instantiations import MATHS, Math
from model import A100, H100, Device, flops_of_mma

LARGE = 8_192  # N of the cycles
TILE = 128  # rows of a tile of the forward
UNITS = ("tensor", "fp32", "mufu", "shared/L1", "issue")
README = Path(__file__).parents[3] / "csrc/cuda/README.md"


@dataclass(frozen=True)
class Counted:
    """One kernel over tiles, as counted."""

    direction: str
    math: Math
    n: int
    d: int
    stats: dict  # a line of the emulator's

    @property
    def pairs(self) -> int:
        """Pairs whose logits are made: the forward makes those of the tiles J >= I."""
        return self.pairs_of(self.n)

    def pairs_of(self, n: int) -> int:
        tiles = n // TILE
        return TILE**2 * tiles * (tiles + 1) // 2 if self.direction == "forward" else n * n

    @property
    def mma_by_hand(self) -> int:
        """2 D flops a pair for the logits, and in the backward 2 D more for H Y."""
        flops = (2 if self.direction == "forward" else 4) * self.pairs * self.d * self.math.products
        return flops // flops_of_mma(self.math)

    def share(self, names: tuple[str, ...], part: str, whole: str) -> float:
        """Quotient of two sums over kinds of accesses."""
        total = self.stats["profile"]["total"]
        found = [total[name] for name in names if name in total]
        return sum(f[part] for f in found) / sum(f[whole] for f in found)

    def cycles(self, device: Device) -> dict[str, float]:
        """Thousands of clocks of each unit of one multiprocessor at N = LARGE."""
        bound = self.stats["profile"]["lower_bound"][device.name]
        scale = bound["sms"] * self.pairs_of(LARGE) / self.pairs / device.multiprocessors / 1000
        return {unit: bound["cycles"][unit] * scale for unit in UNITS}

    def row(self) -> str:
        """Of the table."""
        mma = sum(self.stats[f"mma_{kind}"] for kind in ("bf16", "f16", "tf32"))
        on_a100, on_h100 = (self.cycles(device) for device in (A100, H100))
        cells = [
            f"{self.direction} {self.math.name}",
            self.d,
            f"{mma:,}",
            f"{self.mma_by_hand:,}",
            f"{self.stats['ex2'] / self.pairs:.3f}",
            f"{self.share(('global_load', 'copy_read'), 'ideal_sectors', 'sectors'):.1%}",
            f"{self.share(('global_store',), 'ideal_sectors', 'sectors'):.1%}",
            f"{self.share(('shared_load', 'shared_store', 'ldmatrix', 'copy_write'), 'wavefronts', 'minimum'):.3f}",
            *(f"{on_a100[unit]:.1f}" for unit in UNITS),
            *(f"{on_h100[unit]:.1f}" for unit in ("tensor", "fp32")),
        ]
        return f"| {' | '.join(map(str, cells))} |"


def read(path: Path) -> list[Counted]:
    """The kernels over tiles of one file."""
    found = re.search(r"-(\w+)-(\d+)x(\d+)\.json$", path.name)
    if not found:
        sys.exit(f"ptx_profile: {path}: expected a name that ends in -DTYPE-NxD.json")
    math = next(m for m in MATHS if m.name == found[1])
    result = []
    for line in path.read_text().splitlines():
        stats = json.loads(line)
        named = re.search(r"(forward|backward)_kernel.*Interval", stats["kernel"])
        if named:
            result.append(Counted(named[1], math, int(found[2]), int(found[3]), stats))
    return result


def main() -> None:
    """Write the table."""
    kernels = [kernel for path in sys.argv[1:] for kernel in read(Path(path))]
    order = [m.name for m in MATHS]
    kernels.sort(key=lambda k: (k.direction != "forward", order.index(k.math.name), k.d))
    head = ["kernel", "D", "mma", "by hand", "exps a pair", "loads", "stores", "wavefronts"]
    head += [f"A100 {unit}" for unit in UNITS] + ["H100 tensor", "H100 fp32"]
    table = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1), *(kernel.row() for kernel in kernels)]
    begin, end = "<!-- profile: begin -->\n", "<!-- profile: end -->"
    before, rest = README.read_text().split(begin)
    README.write_text(before + begin + "\n" + "\n".join(table) + "\n\n" + end + rest.split(end)[1])


if __name__ == "__main__":
    main()
