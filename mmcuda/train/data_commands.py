"""The commands ``mmcuda data check`` and ``mmcuda data cache``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mmcuda.data.check import CohortCheck, check_cohort
from mmcuda.data.config import CheckConfig, DataConfig
from mmcuda.data.image_cache import ImageCache
from mmcuda.data.load import load_table
from mmcuda.report.cohort_check import write_check
from mmcuda.report.wording import counted, duration
from mmcuda.train.screen import LABEL, data_lines

SHOWN = 100  # problems of one severity on the screen; the files have them all


def check_command(config: CheckConfig, out: Path | None) -> int:
    """Print everything that is wrong with a cohort, and write it to ``out``; return 2 if there are errors, else 0."""
    started = time.perf_counter()
    batch_size = config.pretrain.batch_size
    check = check_cohort(config.data, batch_size)
    print(*problem_lines(check), sep="\n")
    print(data_lines(check.summary | {"warnings": []}, batch_size))
    print(f"{'images':<{LABEL}}{images_line(check.summary['image_files'])}   {duration(time.perf_counter() - started)}")
    if out is not None:
        print(f"{'report':<{LABEL}}{write_check(check, batch_size, out)}")
    return 2 if check.count("error") else 0


def problem_lines(check: CohortCheck) -> list[str]:
    """Return how many problems there are, then a line for each, errors first."""
    lines = [f"{counted(check.count('error'), 'error')}, {counted(check.count('warning'), 'warning')}"]
    for severity in ("error", "warning"):
        found = [problem for problem in check.problems if problem.severity == severity]
        lines += [f"{severity:<9}{problem}" for problem in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"{severity:<9}and {len(found) - SHOWN:,} more: --out FOLDER writes them all")
    return lines


def images_line(files: dict[str, Any]) -> str:
    """Return the sizes of the images in one line, the most frequent ones first."""
    sizes = [f"{size['images']:,} of {size['width']} x {size['height']}" for size in files["sizes"]]
    sizes += [f"{files['other_sizes']:,} of other sizes"] if files["other_sizes"] else []
    lacking = [f"{files[kind]:,} {kind}" for kind in ("missing", "unreadable") if files[kind]]
    return ", ".join(sizes + lacking)


def cache_command(config: DataConfig) -> None:
    """Decode the images of a cohort into its cache, and print where it is and what was done."""
    started = time.perf_counter()
    cache = ImageCache(load_table(config), config.image_size, config.cache_dir)
    images, _ = cache.load()
    seconds = time.perf_counter() - started
    done = f"{cache.decoded:,} decoded" if cache.decoded else "nothing to decode"
    print(f"{'cache':<{LABEL}}{cache.folder}")
    print(f"{'images':<{LABEL}}{len(images):,}, {images.nbytes / 1e6:,.0f} MB   {done} in {duration(seconds)}")
