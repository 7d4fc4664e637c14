from mmcuda.train.screen import metrics_table, probe_table


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


def test_an_undefined_score_is_shown_as_such():
    rows = rows_of({"clinical": {0.05: None}})
    assert "undefined" in metrics_table(rows)
    assert probe_table(rows).splitlines()[-1].split() == ["clinical", "undefined"]
