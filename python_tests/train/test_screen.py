import pytest

from mmcuda.train.screen import comparison, metrics_table, probe_table


def rows_of(scores, seed=0):
    """Rows of {pretraining: {fraction: mean AUROC}}, with one target beside the mean."""
    return [
        {
            **{"pretraining": name, "label_fraction": fraction, "target": target, "seed": seed, "auroc": auroc},
            **{"auroc_low": auroc, "auroc_high": auroc, "auprc": 0.5, "n_train": 10.0, "n_test": 20},
        }
        for name, curve in scores.items()
        for fraction, auroc in curve.items()
        for target in ("malignancy", "mean")
    ]


def test_the_table_has_a_row_a_pretraining_and_a_column_a_fraction():
    table = probe_table(rows_of({"random": {0.02: 0.5, 1.0: 0.6}, "clinical": {0.02: 0.61, 1.0: 0.7}}))
    assert table.splitlines()[1].split() == ["2", "%", "100", "%"]
    assert [line.split() for line in table.splitlines()[2:]] == [
        ["random", ".500", ".600"],
        ["clinical", ".610", ".700"],
    ]


def test_several_seeds_give_a_standard_deviation():
    rows = rows_of({"clinical": {0.05: 0.6}}) + rows_of({"clinical": {0.05: 0.7}}, seed=1)
    assert probe_table(rows).splitlines()[-1].split() == ["clinical", ".650", "±", ".071"]


@pytest.mark.parametrize(
    ("clinical", "simclr", "sentence"),
    [
        ({0.05: 0.7, 1.0: 0.8}, {0.05: 0.6, 1.0: 0.7}, "clinical at 5 % of the labels reaches simclr at 100 %."),
        ({0.05: 0.65, 1.0: 0.8}, {0.05: 0.6, 1.0: 0.7}, "clinical is above simclr at 5 % of the labels: .650 against"),
        ({0.05: 0.5, 1.0: 0.7}, {0.05: 0.6, 1.0: 0.7}, "clinical is below simclr at 5 % of the labels: .500 against"),
        (
            {0.05: 0.61, 1.0: 0.8},
            {0.05: 0.6, 1.0: 0.6},
            "clinical and simclr do not differ clearly at 5 % of the labels",
        ),
    ],
)
def test_the_sentence_claims_only_what_leaves_the_intervals(clinical, simclr, sentence):
    rows = rows_of({"clinical": clinical, "simclr": simclr})
    for row in rows:
        row |= {"auroc_low": row["auroc"] - 0.01, "auroc_high": row["auroc"] + 0.01}
    assert comparison(rows).startswith(sentence)


def test_with_several_seeds_the_sentence_goes_by_their_spread():
    close = rows_of({"clinical": {0.05: 0.60}, "simclr": {0.05: 0.59}})
    close += rows_of({"clinical": {0.05: 0.64}, "simclr": {0.05: 0.63}}, seed=1)
    assert "do not differ clearly" in comparison(close)
    apart = rows_of({"clinical": {0.05: 0.70}, "simclr": {0.05: 0.59}})
    apart += rows_of({"clinical": {0.05: 0.71}, "simclr": {0.05: 0.60}}, seed=1)
    assert comparison(apart).startswith("clinical is above simclr")


def test_there_is_no_sentence_without_both():
    assert comparison(rows_of({"clinical": {0.05: 0.6}})) is None


def test_an_undefined_score_is_shown_as_such():
    rows = rows_of({"clinical": {0.05: None}})
    assert "undefined" in metrics_table(rows)
    assert probe_table(rows).splitlines()[-1].split() == ["clinical", "undefined"]
