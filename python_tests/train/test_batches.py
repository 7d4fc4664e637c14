import numpy as np
import pytest
import torch

from mmcuda.data import Augment
from mmcuda.train.batches import TrainingSet

STILL = Augment(rotation=0, flip=0, zoom=0, shift=0, gain=0, bias=0, noise=0)
CPU = torch.device("cpu")


class Numbered:
    """A cohort of images of one pixel, whose value is their number."""

    def inputs(self, rows):
        return {"image": torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1)[rows]}


def numbers(batch):
    """The number of the image in every view of a batch, [B, V]."""
    return (255 * batch.inputs["image"]).round().flatten(2)[..., 0].long()


def test_prefetched_batches_hold_the_rows_asked_for_with_their_labels():
    rows = np.arange(5, 20)
    data = TrainingSet(Numbered(), rows, {"row": torch.from_numpy(rows)}, STILL, views=2)
    plan = ((positions, torch.Generator()) for positions in data.epoch(4, seed=0))
    batches = [gathered.batch() for gathered in data.prefetch(plan, CPU)]
    assert len(batches) == 3
    for batch in batches:
        assert batch.inputs["image"].shape == (4, 2, 1, 1, 1)
        for view in numbers(batch).unbind(1):
            assert torch.equal(view, batch.labels["row"])


def test_views_may_be_of_different_images():
    data = TrainingSet(Numbered(), np.arange(5, 20), {"row": torch.arange(5, 20)}, STILL)
    batch = data.batch(np.array([[0, 1, 4], [7, 7, 2]]), torch.Generator(), CPU)
    assert numbers(batch).tolist() == [[5, 6, 9], [12, 12, 7]]
    assert batch.labels["row"].tolist() == [5, 12]


def test_what_goes_wrong_in_the_thread_is_raised_where_the_batch_is_wanted():
    data = TrainingSet(Numbered(), np.arange(5), {}, STILL)
    batches = data.prefetch(iter([(np.array([[0]]), torch.Generator()), (np.array([[9]]), torch.Generator())]), CPU)
    next(batches)
    with pytest.raises(IndexError, match="9 is out of bounds"):
        next(batches)


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"labels\['cst'\] must have 3 rows, got 2"):
        TrainingSet(Numbered(), np.arange(3), {"cst": torch.zeros(2)}, STILL)
