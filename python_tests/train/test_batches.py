import numpy as np
import pytest
import torch

from mmcuda.train.batches import TrainingSet, epoch_positions, prefetch, steps_per_epoch


def test_an_epoch_visits_no_image_twice_and_drops_the_incomplete_batch():
    batches = epoch_positions(107, 10, seed=1)
    assert [len(batch) for batch in batches] == [10] * steps_per_epoch(107, 10)
    assert len(np.unique(np.concatenate(batches))) == 100


def test_order_depends_on_the_seed_alone():
    first, again, other = (np.concatenate(epoch_positions(50, 10, seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_ranks_share_every_batch():
    whole = epoch_positions(50, 10, seed=1)
    shares = [epoch_positions(50, 10, 1, rank, 2) for rank in range(2)]
    for batch, left, right in zip(whole, *shares, strict=True):
        assert len(left) == len(right) == 5
        assert set(batch) == set(left) | set(right)


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert sorted(np.concatenate(epoch_positions(3, 10, seed=0))) == [0, 1, 2]


def test_prefetched_batches_hold_the_rows_asked_for_with_their_labels():
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    rows = np.arange(5, 20)
    data = TrainingSet(images, rows, {"row": torch.from_numpy(rows)})
    batches = list(prefetch(data, epoch_positions(15, 4, seed=0)))
    assert len(batches) == 3
    for batch in batches:
        assert torch.equal(batch.images.flatten().long(), batch.labels["row"])


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"labels\['cst'\] must have 3 rows, got 2"):
        TrainingSet(np.zeros((5, 1, 1, 1), np.uint8), np.arange(3), {"cst": torch.zeros(2)})
