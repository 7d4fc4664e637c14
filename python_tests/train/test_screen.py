from mmcuda.train.screen import level_lines, metrics_table, probe_table


def rows_of(scores, seed=0):
    """Rows of {arm: {fraction: mean AUROC}}, with one target beside the mean."""
    return [
        {
            **{
                "arm": name,
                "label_fraction": fraction,
                "target": target,
                "kind": "binary",
                "seed": seed,
                "auroc": auroc,
            },
            **{"auroc_low": auroc, "auroc_high": auroc, "auprc": 0.5, "n_train": 10.0, "n_test": 20},
            **{"sensitivity": 0.81, "specificity": 0.62, "f1": 0.43, "ece": 0.04, "note": None},
        }
        for name, curve in scores.items()
        for fraction, auroc in curve.items()
        for target in ("malignancy", "mean")
    ]


def test_the_table_has_a_row_an_arm_and_a_column_a_fraction():
    table = probe_table(rows_of({"random": {0.02: 0.5, 1.0: 0.6}, "clinical": {0.02: 0.61, 1.0: 0.7}}))
    assert table.splitlines()[1].split() == ["2", "%", "100", "%"]
    assert [line.split() for line in table.splitlines()[2:]] == [
        ["random", ".500", ".600"],
        ["clinical", ".610", ".700"],
    ]


def test_several_seeds_give_a_standard_deviation():
    rows = rows_of({"clinical": {0.05: 0.6}}) + rows_of({"clinical": {0.05: 0.7}}, seed=1)
    assert probe_table(rows).splitlines()[-1].split() == ["clinical", ".650", "±", ".071"]


def test_the_metrics_of_a_target_are_one_line():
    header, first, *_ = metrics_table(rows_of({"clinical": {0.05: 0.6}})).splitlines()
    assert header.split() == ["labels", "target", "AUROC", "AUPRC", "sens.", "spec.", "F1", "ECE", "n_train", "n_test"]
    assert first.split() == [
        *("5", "%", "malignancy", ".600", "(.600-.600)", ".500", ".810", ".620", ".430", ".040", "10", "20")
    ]


def test_what_is_missing_is_told_below_the_table():
    rows = rows_of({"clinical": {0.05: 0.6}})
    rows[0] |= {"sensitivity": None, "note": "no positive in test"}
    table = metrics_table(rows).splitlines()
    assert " - " in table[1]
    assert table[-1].replace("\xa0", " ") == "note      malignancy at 5 %: no positive in test"


def test_a_level_is_one_line():
    rows = [row | {"level": "patient"} for row in rows_of({"clinical": {0.05: 0.61, 1.0: None}})]
    assert [line.replace("\xa0", " ") for line in level_lines(rows)] == [
        "by patient  mean AUROC .610 at 5 %, - at 100 % (0 of 1 targets)"
    ]
    assert level_lines([]) == []


def test_an_undefined_score_is_shown_as_such():
    rows = rows_of({"clinical": {0.05: None}})
    assert "undefined" in metrics_table(rows)
    assert probe_table(rows).splitlines()[-1].split() == ["clinical", "undefined"]
