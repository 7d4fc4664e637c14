"""Every instantiation of the kernels over tiles, and by hand: its shared memory, threads and instructions.

Properties have the names of the constants in the .cuh files. `forward_counts` and `backward_counts` are what the whole
kernel, as it stands in the binary, must have of each instruction.
"""

from collections import Counter
from dataclasses import dataclass

KB = 1024
PANEL_BYTES = 128


# ---- devices: what one multiprocessor has (CUDA programming guide, "Technical Specifications per Compute Capability")


@dataclass(frozen=True)
class Architecture:
    """Limits of one multiprocessor."""

    name: str
    shared: int  # bytes
    shared_of_block: int  # bytes that one block may have
    warps: int
    system: int  # bytes of a block's shared memory that cuobjdump reports though the kernel has not asked for them
    registers: int = 65536


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture("sm_80", 164 * KB, 163 * KB, 64, 0),
        Architecture("sm_90", 228 * KB, 227 * KB, 64, KB),
        Architecture("sm_100", 228 * KB, 227 * KB, 64, KB),
        Architecture("sm_120", 100 * KB, 99 * KB, 48, KB),
    )
}


def blocks_per_sm(arch: Architecture, threads: int, registers: int, shared: int) -> int:
    """How many blocks fit: registers come in units of 8 a thread; 1 KB of shared memory goes with each."""
    if shared > arch.shared_of_block:
        return 0
    warps = threads // 32
    by_registers = arch.registers // (-(-registers // 8) * 8 * threads)
    return min(by_registers, arch.shared // (shared + KB), arch.warps // warps)


# ---- tiles, as in tiles.cuh, forward.cuh and backward.cuh


@dataclass(frozen=True)
class Math:
    """A dtype's constants in tiles.cuh."""

    name: str
    mangled: str
    element: int  # bytes
    accumulator: int  # bytes
    panel: int  # features
    steps: int
    products: int
    depth: int  # kProductDepth
    group: int
    groups: int
    runs: int  # runs of neighbouring features in a group's accumulators
    pairs_at_once: int
    steps_at_once: int
    most_panels: int = 4

    @property
    def tensor(self) -> bool:
        """Whether products are mma instructions."""
        return self.accumulator == 4


BFLOAT16 = Math("bfloat16", "8HalfMathINS_8bfloat16E", 2, 4, 64, 4, 1, 16, 2, 4, 1, 4, 2)
FLOAT16 = Math("float16", "8HalfMathINS_6half16E", 2, 4, 64, 4, 1, 16, 2, 4, 1, 4, 2)
FLOAT32 = Math("float32", "8Tf32MathILb1E", 4, 4, 32, 4, 3, 8, 4, 1, 2, 1, 1)
TF32 = Math("tf32", "8Tf32MathILb0E", 4, 4, 32, 4, 1, 8, 4, 1, 2, 4, 4)
FLOAT64 = Math("float64", "10DoubleMathE", 8, 8, 16, 8, 1, 1, 2, 1, 2, 1, 1)
MATHS = (BFLOAT16, FLOAT16, FLOAT32, TF32, FLOAT64)


@dataclass(frozen=True)
class Forward:
    """One instantiation of forward_kernel."""

    math: Math
    epilogue: str  # Interval, Any, Margin

    @property
    def name(self) -> str:
        return f"forward {self.math.name} {self.epilogue}"

    @property
    def mangled(self) -> str:
        return f"forward_kernelINS_{self.math.mangled}.*{self.epilogue}Sums"

    @property
    def labels(self) -> bool:
        return self.epilogue == "Interval"

    @property
    def warp_rows(self) -> int:
        return 2

    @property
    def warp_columns(self) -> int:
        return 2 if self.labels and self.math.products == 1 else 4

    @property
    def threads(self) -> int:
        return 32 * self.warp_rows * self.warp_columns

    @property
    def m(self) -> int:
        return 4 if self.math.accumulator == 4 else 2

    @property
    def tile(self) -> int:
        return self.warp_rows * 16 * self.m

    @property
    def n(self) -> int:
        return self.tile // (8 * self.warp_columns)

    @property
    def blocks(self) -> int:
        """Blocks a multiprocessor has room for by design, shared memory permitting: kBlocksPerSm."""
        return 2 if self.labels and self.math.products == 1 else 1

    def cut(self, panels: int, terms: int, arch: Architecture) -> tuple[bool, int]:
        """Whether the rows' panels stay, and the length of a strip: Pass::forward of pass.h."""
        of_tile = terms * self.tile * self.math.accumulator
        strip = min(max((12 * KB - 4 * of_tile) // (2 * of_tile), 1), 8)
        most = max(80 * KB, arch.shared // 2 - KB)
        return self._size(panels, True, terms, strip, warp_columns=4) <= most, strip

    def shared(self, panels: int, terms: int, arch: Architecture) -> int:
        """Bytes of shared memory: ForwardShared."""
        resident, strip = self.cut(panels, terms, arch)
        return self._size(panels, resident, terms, strip, self.warp_columns)

    def _size(self, panels: int, resident: bool, terms: int, strip: int, warp_columns: int) -> int:
        sums = terms * self.tile * self.math.accumulator
        panel, labels = self.tile * PANEL_BYTES, self.tile * 4
        stage = (1 if resident else 2) * panel + labels
        rows = panels * panel if resident else 0
        return rows + 2 * stage + 2 * labels + (warp_columns + self.warp_rows * strip) * sums

    def most_shared(self, arch: Architecture) -> int:
        """Of any D and any number of terms."""
        terms = {"Interval": (2,), "Any": range(1, 9), "Margin": (1,)}[self.epilogue]
        return max(self.shared(panels, t, arch) for panels in range(1, 65) for t in terms)


@dataclass(frozen=True)
class Backward:
    """One instantiation of backward_kernel."""

    math: Math
    epilogue: str
    panels: int

    @property
    def name(self) -> str:
        return f"backward {self.math.name} {self.epilogue} {self.panels}"

    @property
    def mangled(self) -> str:
        return f"backward_kernelINS_{self.math.mangled}.*Li{self.panels}E.*{self.epilogue}Forces"

    @property
    def labels(self) -> bool:
        return self.epilogue == "Interval"

    @property
    def threads(self) -> int:
        return 128

    @property
    def m(self) -> int:
        single = self.math.tensor and self.math.products == 1
        return 2 if self.labels and single and self.panels * self.math.panel <= 128 else 1

    @property
    def n(self) -> int:
        if not self.labels or not self.math.tensor:
            return 2
        if self.panels * self.math.panel <= 64:
            return 8
        return 2 if self.m == 2 and self.math.element == 4 else 4

    @property
    def tile(self) -> int:
        return 4 * 16 * self.m

    @property
    def columns(self) -> int:
        return 8 * self.n

    @property
    def own_in_registers(self) -> bool:
        """Whether fragments of all own panels but the last stay in registers: kOwnInRegisters."""
        return self.labels and self.math.element == 2 and self.panels * self.math.panel > 128

    @property
    def blocks(self) -> int:
        """Blocks a multiprocessor has room for by design, shared memory permitting."""
        return 2

    def most_shared(self, arch: Architecture) -> int:
        """The same for every D and everywhere."""
        stage = self.panels * self.columns * PANEL_BYTES + self.columns * (2 * self.math.accumulator + 4)
        return self.panels * self.tile * PANEL_BYTES + 2 * stage


Kernel = Forward | Backward


def kernels() -> list[Kernel]:
    """Every instantiation over tiles."""
    result: list[Kernel] = []
    for math in MATHS:
        result += [Forward(math, epilogue) for epilogue in ("Interval", "Any", "Margin")]
        narrow = {2: (1, 2), 4: (2,), 8: ()}[math.element]  # panels that have an instantiation of their own
        result += [Backward(math, "Interval", panels) for panels in narrow]
        result += [Backward(math, "Interval", 2 * math.most_panels)] if math.element == 4 else []
        result += [Backward(math, epilogue, math.most_panels) for epilogue in ("Interval", "Any")]
        result.append(Backward(math, "Margin", 2 if math.element == 2 else math.most_panels))
    return result


# ---- counts by hand


def product_counts(math: Math, m: int, n: int, merged: bool) -> Counter[str]:
    """`multiply_panel`: the steps that are unrolled, each of n / 2 loads of B and, for `at_once` of these, m of A.

    `merged`: the compiler loads A once a step.
    """
    at_once = n // 2 if merged else min(n // 2, math.pairs_at_once)
    of_b, of_a = n // 2, m * (n // 2 // at_once)
    if not math.tensor:  # a load of B is 4 of 16 bytes, one of A 2; a product of accumulators is 4 x 2 FMA
        return Counter({"LDS.128": math.steps_at_once * (4 * of_b + 2 * of_a), "DFMA": math.steps_at_once * m * n * 8})
    return Counter(HMMA=math.steps_at_once * m * n * math.products, LDSM=math.steps_at_once * (of_b + of_a))


def own_counts(kernel: Backward) -> Counter[str]:
    """`OwnFragments` beside the last panel's `multiply_panel`: A of the other panels once, then loads of B alone."""
    if not kernel.own_in_registers:
        return Counter()
    steps = (kernel.panels - 1) * kernel.math.steps
    return Counter(HMMA=steps * kernel.n, LDSM=steps * (1 + kernel.n // 2))


def rows_counts(kernel: Backward) -> Counter[str]:
    """`multiply_rows`, all unrolled: steps along the columns of the tile, each of all features of the slice."""
    math = kernel.math
    steps, groups = kernel.columns // math.depth, kernel.panels * math.groups
    if not math.tensor:
        return Counter({"LDS.128": steps * groups * math.group})
    counts = Counter(HMMA=steps * groups * kernel.m * math.products * math.group)
    # Transposed by ldmatrix, or of 32 bits by two loads of 16 bytes
    counts["LDSM" if math.element == 2 else "LDS.128"] = steps * groups * (1 if math.element == 2 else 2)
    return counts


def exponentials(kernel: Kernel) -> int:
    """MUFU.EX2; the exponential of a double is no instruction. The general epilogues exist once for all slices."""
    if not kernel.math.tensor:
        return 0
    of_slice = 4 * kernel.m  # pairs of a lane
    if kernel.epilogue == "Interval":
        return of_slice * kernel.n  # one a pair, for its row and its column
    if kernel.epilogue == "Margin":
        return of_slice  # of the Gaussian relation
    if isinstance(kernel, Forward):
        return of_slice * (1 + 2 * 3)  # Gaussian; exponential, softplus and sigmoid, of row and column
    return of_slice * (2 + 2 * 2)  # Gaussian of sums and of positives; exponential and sigmoid, of row and column


def copies(rows: int, threads: int) -> int:
    """`copy_panel`: copies of 16 bytes by each thread, 8 threads a row."""
    return rows // (threads // 8)


def forward_counts(kernel: Forward, merged: bool = False) -> Counter[str]:
    """`fill` stands at two places, for the first panel and for the next; each copies rows and columns."""
    counts = product_counts(kernel.math, kernel.m, kernel.n, merged)
    panel = copies(kernel.tile, kernel.threads)
    counts["LDGSTS.128"] = 2 * (panel + panel) + panel  # and the panels that stay
    counts["LDGSTS.32"] = 2 * 1 + 2 if kernel.labels else 0  # ranks in `fill`; begins and ends of a row of tiles
    counts["MUFU.EX2"] = exponentials(kernel)
    counts["BAR"] = 1 + 2 + 1  # a panel, a row of tiles, the end
    return counts


def backward_counts(kernel: Backward, merged: bool = False) -> Counter[str]:
    """Two bodies, held and streamed, where D may be larger than the slice, else one; own fragments in that held."""
    math = kernel.math
    bodies = 2 if kernel.panels == math.most_panels or kernel.epilogue == "Margin" else 1
    product, rows = product_counts(math, kernel.m, kernel.n, merged), rows_counts(kernel)
    counts = Counter({name: bodies * (product[name] + rows[name]) for name in (product | rows)}) + own_counts(kernel)
    if not math.tensor:
        counts["DFMA"] = product["DFMA"]  # of one product loop
    if not math.tensor and kernel.labels:
        counts["LDS.128"] += bodies * 2 * kernel.n  # coefficients and positives of two columns
    own, other = copies(kernel.tile, kernel.threads), copies(kernel.columns, kernel.threads)
    counts["LDGSTS.128"] = own + 2 * other  # held: own panels; the first tile and the next
    if bodies == 2:
        counts["LDGSTS.128"] += 3 * (own + other) + other  # streamed: `copy_step` at three places, the slice
    if kernel.labels:
        arrays, places = 3, bodies + 1  # coefficients, positives, ranks
        counts["LDGSTS.32"] = places * (arrays if math.tensor else 1)
        counts["LDGSTS.64"] = 0 if math.tensor else places * 2
    counts["MUFU.EX2"] = bodies * exponentials(kernel)
    counts["BAR"] = bodies
    # Runs of four features, of doubles two, as partial sums and as gradients in the dtype of the features
    runs = 2 * kernel.m * kernel.panels * math.groups * math.runs
    counts["STG.128"] = runs + (runs if math.element > 2 else 0)
    counts["STG.64"] = runs if math.element == 2 else 0
    return counts


def expected_counts(kernel: Kernel, merged: bool = False) -> Counter[str]:
    """What the binary must have of each instruction."""
    return forward_counts(kernel, merged) if isinstance(kernel, Forward) else backward_counts(kernel, merged)
