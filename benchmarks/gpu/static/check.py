"""Check what the compiler made of the kernels: no spills, no stack, registers and shared memory, instruction counts.

    python check.py LIBRARY.. [--model]

LIBRARY is the extension (or its objects) with machine code for every architecture of instantiations.py. Counts are of
the whole kernel as it stands in the binary and must equal those computed by hand from the sizes of the tiles. Prints a
table, then each failure; exits 1 if there is one, 2 without cuobjdump. --model writes the tables of
csrc/cuda/README.md anew (model.py).
"""

import argparse
import re
import sys
from collections import Counter

from binary import Binary, find_tool, read_library
from instantiations import ARCHITECTURES, KB, Architecture, Kernel, blocks_per_sm, expected_counts, kernels


def check_resources(arch: Architecture, binary: Binary, counts: Counter[str]) -> list[str]:
    """Nothing may live in local memory."""
    wrong = []
    if binary.stack:
        wrong.append(f"stack frame: expected 0 bytes, found {binary.stack}")
    if spills := counts["LDL"] + counts["STL"]:
        wrong.append(f"spills: expected 0 LDL and STL, found {spills}")
    if binary.static_shared not in (0, arch.system):  # what the system takes where a kernel uses any
        wrong.append(f"static shared memory: expected {arch.system} bytes, found {binary.static_shared}")
    return wrong


def check_kernel(kernel: Kernel, arch: Architecture, binary: Binary, counts: Counter[str]) -> tuple[int, list[str]]:
    """Blocks per multiprocessor, and what is wrong."""
    wrong = check_resources(arch, binary, counts)
    shared = kernel.most_shared(arch)
    blocks = blocks_per_sm(arch, kernel.threads, binary.registers, shared)
    # Where a multiprocessor has 100 KB, there may be room for one or for none: then with_backward takes another kernel.
    stated = min(kernel.blocks, arch.shared // (shared + KB))
    if blocks < stated:
        wrong.append(
            f"blocks per SM: expected {stated}, found {blocks} ("
            f"{binary.registers} registers x {kernel.threads} threads, {shared} bytes of shared memory)"
        )
    expected, merged = expected_counts(kernel), expected_counts(kernel, merged=True)
    names = {"HMMA", "LDSM", "LDGSTS.128", "LDGSTS.64", "LDGSTS.32", "MUFU.EX2", "BAR", *expected}
    for name in sorted(names):
        found, want = counts[name], expected[name]
        # The compiler may take a test out of the loop over slices of a general epilogue, and so write the loop twice.
        twice = name == "MUFU.EX2" and kernel.epilogue != "Interval" and want < found <= 2 * want
        if found not in (want, merged[name]) and not (twice and found % (4 * kernel.m) == 0):
            wrong.append(f"{name}: expected {want}, found {found}")
    return blocks, wrong


def check(binaries: dict[tuple[str, str], Binary]) -> list[str]:
    """Print the table; return the failures."""
    columns = ("HMMA", "DFMA", "LDSM", "LDGSTS.128", "STG.128", "MUFU.EX2", "BAR")
    print(
        f"{'kernel':30} {'arch':6} {'regs':>4} {'stack':>5} {'spill':>5} {'shared':>6} {'blocks':>6}",
        *columns,
        sep="  ",
    )
    failures = []
    for arch in ARCHITECTURES.values():
        of_arch = {name: binary for (a, name), binary in binaries.items() if a == arch.name}
        for kernel in kernels():
            names = [name for name in of_arch if re.search(kernel.mangled, name)]
            if len(names) != 1:
                failures.append(f"{kernel.name}, {arch.name}: expected one kernel in the library, found {len(names)}")
                continue
            binary = of_arch.pop(names[0])
            counts = binary.counts()
            blocks, wrong = check_kernel(kernel, arch, binary, counts)
            spills = counts["LDL"] + counts["STL"]
            print(
                f"{kernel.name:30} {arch.name:6} {binary.registers:4} {binary.stack:5} {spills:5} "
                f"{kernel.most_shared(arch):6} {blocks:6}",
                *(f"{counts[c]:{len(c)}}" for c in columns),
                "FAILED" if wrong else "ok",
                sep="  ",
            )
            failures += [f"{kernel.name}, {arch.name}: {line}" for line in wrong]
        # The others are one thread or warp an item, 256 threads a block: they only must not spill.
        most = 0
        for name, binary in of_arch.items():
            wrong = check_resources(arch, binary, binary.counts())
            if "forward_kernel" in name or "backward_kernel" in name:
                wrong.append("an instantiation that the table of kernels does not have")
            failures += [f"{name}, {arch.name}: {line}" for line in wrong]
            most = max(most, binary.registers)
        print(f"{len(of_arch)} kernels over items".ljust(30), f"{arch.name:6} {most:4} at most")
    return failures


def main() -> int:
    """Exit status: 0 all gates hold, 1 one does not, 2 no cuobjdump."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", nargs="+")
    parser.add_argument("--model", action="store_true", help="write the tables of csrc/cuda/README.md anew")
    arguments = parser.parse_args()
    tool = find_tool("cuobjdump")
    if not tool:
        print("static check: no cuobjdump: set CUOBJDUMP, or `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`")
        return 2
    binaries = read_library(arguments.library, tool)
    failures = check(binaries)
    print(*(f"FAILED {failure}" for failure in failures), sep="\n")
    print(f"{len(failures)} failures" if failures else "all gates hold")
    if arguments.model:
        import model

        model.write(binaries)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
