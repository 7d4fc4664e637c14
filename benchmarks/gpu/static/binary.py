"""What the compiler made of the kernels: registers, stack and instructions, as cuobjdump prints them."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*?);")


@dataclass
class Binary:
    """One kernel of one architecture, as compiled."""

    registers: int = 0
    stack: int = 0
    static_shared: int = 0
    code: list[tuple[int, str, int]] = field(default_factory=list)  # address, instruction, target if a branch, else -1

    def counts(self) -> Counter[str]:
        """By instruction, and for those that occur in several widths by width."""
        result: Counter[str] = Counter()
        for _, instruction, _ in self.code:
            first, *rest = instruction.split(".")
            first = {"LD": "LDG", "ST": "STG"}.get(first, first)  # of an address whose space the compiler has not seen
            if first in ("LDG", "STG", "LDS", "STS", "LDGSTS"):
                width = next((w for w in rest if w in ("64", "128")), "32")
                result[f"{first}.{width}"] += 1
            elif first == "MUFU":
                result[f"MUFU.{rest[0]}"] += 1
            else:
                result[first] += 1
        result["DFMA"] = self._in_smallest_loop("DFMA", "LDS")
        return result

    def _in_smallest_loop(self, wanted: str, beside: str) -> int:
        """Instructions in the smallest loop that has both, since elsewhere doubles are divided and raised."""
        names = [(address, instruction.split(".")[0]) for address, instruction, _ in self.code]
        smallest: list[str] = []
        for end, _, begin in self.code:
            if not 0 <= begin < end:
                continue
            loop = [name for address, name in names if begin <= address <= end]
            if wanted in loop and beside in loop and (not smallest or len(loop) < len(smallest)):
                smallest = loop
        return smallest.count(wanted)


def find_tool(name: str) -> str | None:
    """$CUOBJDUMP (or the like), PATH, or the folders of packages that bring it."""
    packages = Path(sysconfig.get_paths()["purelib"])
    found = [os.environ.get(name.upper()), shutil.which(name)]
    found += sorted(
        map(str, [*packages.glob(f"nvidia/*/bin/{name}"), *packages.glob(f"triton/backends/nvidia/bin/{name}")])
    )
    return next((path for path in found if path and Path(path).is_file()), None)


def read_library(libraries: list[str], tool: str) -> dict[tuple[str, str], Binary]:
    """(architecture, mangled name) -> what was compiled."""
    disassembler = find_tool("nvdisasm")
    env = dict(os.environ)
    if disassembler:
        env["PATH"] = f"{Path(disassembler).parent}{os.pathsep}{env['PATH']}"
    result: dict[tuple[str, str], Binary] = {}
    for library in libraries:
        arch = name = ""
        for line in run_tool([tool, "-res-usage", library], env):
            if line.startswith("arch = "):
                arch = line.split()[2]
            elif match := re.match(r"\s*Function (\S+):", line):
                name = match[1]
            elif "REG:" in line:
                usage = dict(re.findall(r"(\w+):(\d+)", line))
                binary = Binary(int(usage["REG"]), int(usage["STACK"]), int(usage["SHARED"]))
                result[arch, name] = binary
        binary = Binary()
        for line in run_tool([tool, "-sass", library], env):
            if line.startswith("arch = "):
                arch = line.split()[2]
            elif match := re.match(r"\s*Function : (\S+)", line):
                binary = result[arch, match[1]]
            elif match := INSTRUCTION.match(line):
                target = re.search(r"0x([0-9a-f]+)", match[3]) if match[2].startswith("BRA") else None
                binary.code.append((int(match[1], 16), match[2], int(target[1], 16) if target else -1))
    return result


def run_tool(command: list[str], env: dict[str, str]) -> list[str]:
    """Lines of the output; the tool's own message if it fails."""
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"static check: {' '.join(command)}: {done.stderr.strip() or 'failed'}")
    return done.stdout.splitlines()
