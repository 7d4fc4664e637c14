import math

import pandas as pd
import pytest

from mmcuda.report.results import Results
from mmcuda.report.wording import decimal, duration, finding_details, headline, needed_text, percent, score_text


def results(curves: dict[str, list[float]], seeds: int = 1, half_width: float = 0.0) -> Results:
    """Results of one target at 2 %, 5 %, 25 % and 100 %; seed k adds k thousandths."""
    return Results(
        pd.DataFrame(
            {
                "arm": name,
                "label_fraction": fraction,
                "target": "mean",
                "seed": seed,
                "auroc": value + seed / 1000,
                "auroc_low": value - half_width,
                "auroc_high": value + half_width,
                "auprc": value / 2,
            }
            for name, values in curves.items()
            for fraction, value in zip((0.02, 0.05, 0.25, 1.0), values, strict=True)
            for seed in range(seeds)
        )
    )


def test_needed_fraction_is_linear_in_the_logarithm() -> None:
    found = results({"simclr": [0.60, 0.62, 0.64, 0.68]})
    halfway = math.sqrt(0.25 * 1.0)
    assert found.fraction_needed("simclr", 0.66) == pytest.approx(halfway)
    assert found.fraction_needed("simclr", 0.59) == 0.02
    assert found.fraction_needed("simclr", 0.69) is None


def test_needed_fraction_skips_undefined_scores() -> None:
    found = results({"simclr": [0.60, math.nan, 0.64, 0.68]})
    assert found.fraction_needed("simclr", 0.62) == pytest.approx(math.sqrt(0.02 * 0.25))


def test_a_win_is_told_in_labels() -> None:
    found = results({"simclr": [0.60, 0.62, 0.64, 0.68], "clinical": [0.63, 0.66, 0.67, 0.69]})
    assert headline(found) == "clinical at 5\xa0% of the labelled patients reaches what simclr needs 50\xa0% for."
    assert finding_details(found, 600) == ["That is about 30 labelled patients in place of 300: 90\xa0% fewer."]


def test_a_win_that_the_baseline_never_reaches_is_not_extrapolated() -> None:
    found = results({"simclr": [0.60, 0.62, 0.64, 0.65], "clinical": [0.63, 0.66, 0.67, 0.69]})
    assert headline(found) == "clinical at 5\xa0% of the labelled patients does better than simclr at 100\xa0%."
    assert needed_text(found.headline_comparison(), found) == "not reached at 100\xa0%"


def test_a_loss_is_said_plainly() -> None:
    found = results({"simclr": [0.60, 0.65, 0.68, 0.70], "clinical": [0.58, 0.61, 0.62, 0.63]})
    assert headline(found).startswith("clinical saves no labels against simclr: a mean AUROC of .610 against .650")
    assert finding_details(found, 600) == ["What simclr has at 5\xa0%, clinical does not reach at 100\xa0%."]


def test_shuffled_labels_that_do_as_well_take_the_credit_away() -> None:
    curves = {"simclr": [0.60, 0.62, 0.64, 0.68], "clinical": [0.63, 0.66, 0.67, 0.69]}
    equal = finding_details(results({**curves, "shuffled": [0.63, 0.67, 0.68, 0.69]}), 600)
    assert any("does not come from what the labels say" in sentence for sentence in equal)
    worse = finding_details(results({**curves, "shuffled": [0.60, 0.61, 0.62, 0.63]}), 600)
    assert any(".610 in place of .660" in sentence for sentence in worse)


def test_several_seeds_give_a_standard_deviation_and_one_seed_the_bootstrap() -> None:
    values = {"simclr": [0.60, 0.62, 0.64, 0.68]}
    several, single = results(values, seeds=3, half_width=0.05), results(values, half_width=0.05)
    assert score_text(several.score("simclr", 0.05), several.several_seeds) == ".621 ± .001"
    assert score_text(single.score("simclr", 0.05), single.several_seeds) == ".620 (.570\N{EN DASH}.670)"
    assert score_text(single.score("simclr", 0.05, "mean", "auprc"), single.several_seeds) == ".310"
    assert score_text(single.score("simclr", 0.05, "no such target"), single.several_seeds) == "\N{EN DASH}"


def test_without_a_fraction_of_five_percent_the_largest_speaks() -> None:
    rows = {"arm": "random", "target": "mean", "seed": 0, "auroc_low": 0.5, "auroc_high": 0.7, "auprc": 0.3}
    found = Results(pd.DataFrame([{**rows, "label_fraction": 0.02, "auroc": 0.6}]))
    assert found.headline_fraction == 0.02


def test_without_any_mean_the_headline_says_so() -> None:
    found = results({"random": [math.nan] * 4})
    assert headline(found) == "No mean AUROC can be given: no target has both classes in the test set."


@pytest.mark.parametrize(
    ("value", "text"), [(0.6534, ".653"), (1.0, "1.000"), (-0.0081, "\N{MINUS SIGN}.008"), (math.nan, "\N{EN DASH}")]
)
def test_decimal(value: float, text: str) -> None:
    assert decimal(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.05, "5 %"), (0.034, "3.4 %"), (0.3125, "31 %"), (1.0, "100 %")])
def test_percent(value: float, text: str) -> None:
    assert percent(value) == text.replace(" ", "\xa0")


@pytest.mark.parametrize(("seconds", "text"), [(44.6, "45 s"), (125, "2 min 05 s"), (3725, "1 h 02 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds).replace("\xa0", " ") == text
