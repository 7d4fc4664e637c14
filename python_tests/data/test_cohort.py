from dataclasses import replace

import numpy as np
import pytest

from mmcuda import Equal
from mmcuda.data import ClinicalLabel, Cohort, DataConfig, load_cohort


def label(values):
    return {"cst": ClinicalLabel(np.array(values), Equal(), "um")}


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("image_names", lambda table: table.image_names[1:]),
        ("row_numbers", lambda table: table.row_numbers.astype(float)),
        ("patients", lambda table: table.patients[1:]),
        ("patients", lambda table: table.bags),
        ("bags", lambda table: table.bags[1:]),
        ("bags", lambda table: table.bags.astype(float)),
        ("clinical", lambda table: label([1.0, 2.0])),
        ("clinical", lambda table: label(np.full(len(table), np.inf))),
        ("targets", lambda table: {"fluid": np.zeros(3, dtype=np.float32)}),
        ("targets", lambda table: {"fluid": np.full(len(table), 2.0, dtype=np.float32)}),
        ("tabular", lambda table: {"age": np.zeros(len(table), dtype=int)}),
        ("text", lambda table: {"report": np.zeros(len(table))}),
        ("subgroups", lambda table: {"sex": table.patients[1:]}),
        ("split", lambda table: np.full(len(table), "training")),
    ],
)
def test_a_wrong_field_is_named(lidc, field, wrong):
    with pytest.raises(ValueError, match=rf"^{field}.* must .*, got "):
        replace(lidc.table, **{field: wrong(lidc.table)})


@pytest.mark.parametrize(
    "wrong", [lambda images: images[:, 0], lambda images: images[:, :2], lambda images: images[1:]]
)
def test_images_that_do_not_fit_the_table_are_refused(lidc, wrong):
    with pytest.raises(ValueError, match=r"^images must be .*, got .*\["):
        Cohort(lidc.table, wrong(lidc.images), lidc.split)


def test_images_of_another_type_are_refused(lidc):
    with pytest.raises(ValueError, match=r"images must be uint8 \[N, C, H, W\], got float32"):
        Cohort(lidc.table, np.zeros(lidc.images.shape, np.float32), lidc.split)


def test_a_cohort_shows_its_table(lidc):
    table = lidc.table
    assert (lidc.name, lidc.title, lidc.statement) == (table.name, table.title, table.statement)
    assert lidc.patients is table.patients
    assert lidc.bags is table.bags
    assert lidc.clinical is table.clinical
    assert lidc.targets is table.targets
    assert lidc.channel_names == ("largest slice", "thickness", "coronal projection")
    assert "not pathology" in lidc.statement
    assert "Armato" in lidc.statement


def test_a_part_of_a_cohort_keeps_rows_together(lidc):
    rows = np.array([9, 3, 6000])
    part = lidc.take(rows)
    np.testing.assert_array_equal(part.images, lidc.images[rows])
    np.testing.assert_array_equal(part.patients, lidc.patients[rows])
    np.testing.assert_array_equal(part.clinical["diameter"].values, lidc.clinical["diameter"].values[rows])
    np.testing.assert_array_equal(part.targets["malignancy"], lidc.targets["malignancy"][rows])


def test_a_part_of_a_cohort_is_split_as_the_whole(lidc):
    rows = np.array([lidc.test[5], lidc.train[2], lidc.test[0]])
    part = lidc.take(rows)
    assert (part.train.tolist(), part.validation.tolist(), part.test.tolist()) == ([1], [], [0, 2])


def test_inputs_have_the_shape_of_the_rows(lidc):
    rows = np.array([[9, 3], [3, 60]])
    image = lidc.inputs(rows)["image"]
    assert image.shape == (2, 2, 3, 32, 32)
    np.testing.assert_array_equal(image[1, 1].numpy(), lidc.images[60])


def test_the_target_matrix_holds_the_targets_as_columns(lidc):
    np.testing.assert_array_equal(lidc.target_matrix[:, 1], lidc.targets["spiculation"])
    assert lidc.target_matrix is lidc.target_matrix
    assert lidc.with_labels(targets={}).target_matrix.shape == (len(lidc.table), 0)


def test_other_labels_leave_the_rest_as_it_is(lidc):
    part = lidc.with_labels(clinical={"diameter": lidc.clinical["diameter"]})
    assert list(part.clinical) == ["diameter"]
    assert part.targets is lidc.targets
    assert part.images is lidc.images


def test_images_come_from_the_cache_the_second_time(lidc, cache_dir):
    again = load_cohort(DataConfig(image_size=32, cache_dir=cache_dir))
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(again.images[::100], lidc.images[::100])
