"""Print a pytest-benchmark JSON as the table of the README: medians, and how many times slower each peer is."""

import json
import sys
from collections import defaultdict


def main(path: str) -> None:
    with open(path) as file:
        rows = json.load(file)["benchmarks"]
    medians: dict[int, dict[str, float]] = defaultdict(dict)
    memory: dict[int, dict[str, float]] = defaultdict(dict)
    for row in rows:
        info = row["extra_info"]
        if "peak_MiB" in info:
            memory[info["N"]][info["implementation"]] = info["peak_MiB"]
        else:
            medians[info["N"]][info["implementation"]] = row["stats"]["median"]

    first = rows[0]["extra_info"]
    print(f"forward + backward, D = {first['D']}, float32, {first['threads']} threads, torch {first['torch']}")
    peers = [name for name in next(iter(medians.values())) if name not in ("mmcuda", "sgemm")]
    print(f"| N | mmcuda | of sgemm's rate | {' | '.join(f'{p} / mmcuda' for p in peers)} |")
    print("|---" * (3 + len(peers)) + "|")
    for n, times in sorted(medians.items()):
        ours = times["mmcuda"]
        rate = 2 * times["sgemm"] / ours
        ratios = " | ".join(f"{times[p] / ours:.1f}" for p in peers)
        print(f"| {n} | {ours * 1e3:.1f} ms | {rate:.2f} | {ratios} |")
    for n, peaks in sorted(memory.items()):
        print(f"peak memory N = {n}: " + ", ".join(f"{name} {peak:.0f} MiB" for name, peak in peaks.items()))


if __name__ == "__main__":
    main(sys.argv[1])
