"""The report of a check of a cohort: one HTML page, and the same as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mmcuda.data.check import CohortCheck
from mmcuda.errors import UserError
from mmcuda.report.html import page_environment
from mmcuda.report.wording import counted

PROBLEMS_SHOWN = 1000  # on the page, errors first; the JSON file has them all


def write_check(check: CohortCheck, batch_size: int, out: Path) -> Path:
    """Write cohort_report.html and cohort_report.json into the folder ``out``, which is made if need be.

    Returns:
        The path of cohort_report.html.

    Raises:
        UserError: if the folder cannot be written.
    """
    errors, warnings = check.count("error"), check.count("warning")
    content = {
        "errors": errors,
        "warnings": warnings,
        "batch_size": batch_size,
        "problems": [asdict(problem) for problem in check.problems],
        "cohort": check.summary,
    }
    page = page_environment().get_template("cohort_check.html.j2")
    text = page.render(
        verdict=f"{counted(errors, 'error')}, {counted(warnings, 'warning')}",
        errors=errors,
        problems=check.problems[:PROBLEMS_SHOWN],
        more=max(len(check.problems) - PROBLEMS_SHOWN, 0),
        cohort=check.summary,
        batch_size=batch_size,
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "cohort_report.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (out / "cohort_report.html").write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {(error.strerror or str(error)).lower()}. Choose another folder with --out."
        ) from error
    return out / "cohort_report.html"
