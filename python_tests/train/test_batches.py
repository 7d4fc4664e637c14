import numpy as np
import pytest
import torch

from mmcuda.data import Augment
from mmcuda.train.batches import TrainingSet

STILL = Augment(rotation=0, flip=0, zoom=0, shift=0, gain=0, bias=0, noise=0)
CPU = torch.device("cpu")


def test_prefetched_batches_hold_the_rows_asked_for_with_their_labels():
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    rows = np.arange(5, 20)
    data = TrainingSet(images, rows, {"row": torch.from_numpy(rows)}, STILL, views=2)
    plan = ((positions, torch.Generator()) for positions in data.epoch(4, seed=0))
    batches = [gathered.batch() for gathered in data.prefetch(plan, CPU)]
    assert len(batches) == 3
    for batch in batches:
        assert batch.views.shape == (4, 2, 1, 1, 1)
        for view in batch.views.unbind(1):
            assert torch.equal((255 * view).round().flatten().long(), batch.labels["row"])


def test_what_goes_wrong_in_the_thread_is_raised_where_the_batch_is_wanted():
    data = TrainingSet(np.zeros((5, 1, 8, 8), np.uint8), np.arange(5), {}, STILL)
    batches = data.prefetch(iter([(np.array([0]), torch.Generator()), (np.array([9]), torch.Generator())]), CPU)
    next(batches)
    with pytest.raises(IndexError, match="9 is out of bounds"):
        next(batches)


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"labels\['cst'\] must have 3 rows, got 2"):
        TrainingSet(np.zeros((5, 1, 1, 1), np.uint8), np.arange(3), {"cst": torch.zeros(2)}, STILL)
