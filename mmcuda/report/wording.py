"""Numbers and findings in words."""

from __future__ import annotations

import math

from mmcuda.report.results import LabelsSaved, Results, Score

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"


def decimal(value: float) -> str:
    """Write a score: 0.6534 is ``.653``; NaN is a dash."""
    if math.isnan(value):
        return DASH
    text = f"{abs(value):.3f}".removeprefix("0")
    return f"{MINUS}{text}" if value < 0 and text != ".000" else text


def signed(value: float) -> str:
    """Write a difference of scores with its sign: ``+.021``."""
    text = decimal(value)
    return f"+{text}" if value > 0 else text


def percent(fraction: float) -> str:
    """Write a fraction: 0.05 is ``5 %``, 0.034 is ``3.4 %``; NaN is a dash."""
    if math.isnan(fraction):
        return DASH
    value = 100 * fraction
    digits = 0 if value >= 9.95 or abs(value - round(value)) < 0.05 else 1
    return f"{value:.{digits}f}{SPACE}%"


def counted(number: int, thing: str) -> str:
    """Write a number of things: ``no errors``, ``1 error``, ``1,200 errors``."""
    return f"{number:,} {thing}{'s' if number > 1 else ''}" if number else f"no {thing}s"


def duration(seconds: float) -> str:
    """Write a duration: ``45 s``, ``2 min 05 s``, ``1 h 02 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{SPACE}min {whole % 60:02d}{SPACE}s"
    return f"{whole // 3600}{SPACE}h {whole % 3600 // 60:02d}{SPACE}min"


def score_text(score: Score, several_seeds: bool) -> str:
    """Write a score with its interval: ``.653 ± .012`` over seeds, ``.653 (.612-.691)`` by the bootstrap."""
    if math.isnan(score.value):
        return DASH
    if math.isnan(score.low) or math.isnan(score.high):
        return decimal(score.value)
    if several_seeds:
        return f"{decimal(score.value)} ± {decimal(score.high - score.value)}"
    return f"{decimal(score.value)} ({decimal(score.low)}{DASH}{decimal(score.high)})"


def interval_meaning(results: Results) -> str:
    """Say what every interval of the report is."""
    if results.several_seeds:
        return f"one standard deviation over {len(results.seeds)} seeds; the test patients are the same in all"
    return f"95{SPACE}% bootstrap intervals over test patients; one seed"


def needed_text(row: LabelsSaved, results: Results) -> str:
    """Say at which label fraction the baseline is as good as the subject."""
    if row.needed is None:
        return f"not reached at {percent(results.fractions[-1])}"
    if row.needed == results.fractions[0]:
        return f"at most {percent(row.needed)}"
    return percent(row.needed)


def several(results: Results) -> str:
    """Say what a target of a kind needs to be scored."""
    return "both classes" if results.kind.kind == "binary" else "several classes or values"


def headline(results: Results) -> str:
    """Return the finding in one sentence, whichever way it went."""
    subject, baseline, row = results.subject, results.baseline, results.headline_comparison()
    fraction = percent(results.headline_fraction)
    largest = percent(results.fractions[-1])
    if baseline is None:
        value = results.score(subject, results.headline_fraction).value
        if math.isnan(value):
            return f"No mean {results.label} can be given: no target has {several(results)} in the test set."
        return (
            f"{subject} alone: a mean {results.label} of {decimal(value)} at {fraction} of the labelled patients, "
            "with no other arm to compare it with."
        )
    if row is None:
        undefined = f"a mean {results.label} at {fraction} of the labels is undefined"
        return f"{subject} and {baseline} cannot be compared: {undefined}."
    if row.needed is None:
        return f"{subject} at {fraction} of the labelled patients does better than {baseline} at {largest}."
    if row.needed > row.fraction:
        return (
            f"{subject} at {fraction} of the labelled patients reaches what {baseline} needs {percent(row.needed)} for."
        )
    return (
        f"{subject} saves no labels against {baseline}: a mean {results.label} of {decimal(row.subject.value)} against "
        f"{decimal(row.baseline.value)} at {fraction} of the labelled patients."
    )


def in_labels(results: Results, row: LabelsSaved, train_patients: int) -> str:
    """Say what the difference is worth in labelled patients."""
    subject, baseline = results.subject, results.baseline or ""
    few = max(1, round(row.fraction * train_patients))
    largest = percent(results.fractions[-1])
    if row.needed is None:
        everyone = round(results.fractions[-1] * train_patients)
        return f"About {few} labelled patients do better than {everyone} do after {baseline}."
    if row.needed > row.fraction:
        many = round(row.needed * train_patients)
        return (
            f"That is about {few} labelled patients in place of {many}: {percent(1 - row.fraction / row.needed)} fewer."
        )
    needed = results.fraction_needed(subject, row.baseline.value)
    if needed is None:
        return f"What {baseline} has at {percent(row.fraction)}, {subject} does not reach at {largest}."
    return f"For what {baseline} has at {percent(row.fraction)}, {subject} needs {percent(needed)}."


def control_finding(results: Results, row: LabelsSaved) -> str | None:
    """Say what is left of the subject's gain in its control; None where there is no gain, or no control of it."""
    subject = next(arm for arm in results.arms if arm.name == results.subject)
    control = next((arm.name for arm in results.arms if arm.controls(subject)), None)
    value = results.score(control, row.fraction).value if control else math.nan
    wins = row.needed is None or row.needed > row.fraction
    if not wins or math.isnan(value):
        return None
    if value >= row.subject.value:
        return (
            f"But the control, {control}, does as well ({decimal(value)}), "
            "so the gain does not come from what the labels say."
        )
    return f"The control, {control}, has {decimal(value)} in place of {decimal(row.subject.value)}."


def difference_text(difference: float, low: float, high: float) -> str:
    """Write a paired difference with its interval: ``+.044 (+.025 to +.063)``."""
    return DASH if math.isnan(difference) else f"{signed(difference)} ({signed(low)} to {signed(high)})"


def paired_finding(results: Results, row: LabelsSaved) -> str | None:
    """Say how sure the subject's difference from the baseline is; None where it was not computed."""
    pairs = results.differences()
    found = pairs[(pairs["arm"] == results.subject) & (pairs["label_fraction"] == row.fraction)]
    if found.empty:
        return None
    pair = found.iloc[0]
    text = difference_text(pair["difference"], pair["difference_low"], pair["difference_high"])
    seeds = f"{pair['pairs']} seeds" if pair["pairs"] > 1 else "one seed"
    return f"The paired difference at {percent(row.fraction)} is {text}, p = {decimal(pair['p'])}, over {seeds}."


def finding_details(results: Results, train_patients: int) -> list[str]:
    """Return the sentences below the headline: its worth in patients, its certainty, and its control."""
    row = results.headline_comparison()
    if row is None:
        return []
    sentences = [in_labels(results, row, train_patients), paired_finding(results, row), control_finding(results, row)]
    return [sentence for sentence in sentences if sentence]
