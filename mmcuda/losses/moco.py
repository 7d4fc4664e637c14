"""Supervised contrastive loss against a queue of earlier keys, as in MoCo."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcuda._native.checks import check_device, check_features
from mmcuda.functional import Implementation, Reduction, cross_contrast_loss
from mmcuda.losses.base import ContrastiveLoss, check_labels, check_pairs, classes_of_pairs
from mmcuda.relations import Attribute, Equal


class QueuedSupConLoss(ContrastiveLoss):
    """Supervised contrastive loss against a memory queue (He et al. 2020, MoCo, arXiv 1911.05722; with labels: Khosla
    et al. 2020, arXiv 2004.11362).

    Each query is compared with the keys of its batch and with the queue, the last ``queue_size`` keys of earlier
    batches. Its positives are its own key and all keys with its label. The call changes nothing: give the keys to
    :meth:`enqueue` after the backward pass.

    The keys are the caller's: a second encoder makes them, whose weights are a moving average of the encoder's
    (theta_k = m theta_k + (1 - m) theta_q, m = 0.999 in MoCo), without a gradient. Keys that require a gradient get one
    within their batch. In distributed training, enqueue the keys of all processes, so that all queues stay the same.

    The call compiles (also with ``fullgraph=True``) once the queue is full. Until then it grows with every step, and
    each would be compiled anew: run it uncompiled while not ``criterion.full``.

    Args:
        queue_size: keys kept, Q.
        feature_size: D.
        temperature: tau > 0; a tensor or parameter is learnable.
        reduction: "mean" over the queries, "has_positives" (the same here), "sum", or "none" ([B]).
        impl: "auto", "fused" or "reference", see :func:`mmcuda.functional.cross_contrast_loss`.

    The state (``state_dict``) is ``queue`` [Q, D] and ``queue_labels`` [Q], a ring, and how many keys have come.
    ``full`` tells whether the queue has its Q keys.

    Raises:
        ValueError: ``queue_size`` or ``feature_size`` is not a positive whole number.

    Example:
        >>> criterion = QueuedSupConLoss(queue_size=4096, feature_size=128)
        >>> queries, keys = torch.nn.functional.normalize(torch.randn(2, 8, 128), dim=-1)  # encoder, momentum encoder
        >>> labels = torch.randint(0, 3, (8,))
        >>> loss = criterion(queries, keys, labels)
        >>> criterion.enqueue(keys, labels)  # after loss.backward()
    """

    queue: Tensor  # [Q, D]
    queue_labels: Tensor  # [Q] int64, -1 = missing
    repr_fields = ("queue_size", "feature_size", *ContrastiveLoss.repr_fields)

    def __init__(
        self,
        queue_size: int,
        feature_size: int,
        temperature: float | Tensor = 0.07,
        *,
        reduction: Reduction = "mean",
        impl: Implementation = "auto",
    ) -> None:
        super().__init__(reduction, impl)
        for name, size in (("queue_size", queue_size), ("feature_size", feature_size)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a positive whole number, got {size!r}")
        self.temperature = temperature
        self.queue_size = queue_size
        self.feature_size = feature_size
        self.register_buffer("queue", torch.zeros(queue_size, feature_size))
        self.register_buffer("queue_labels", torch.full((queue_size,), -1))
        self.set_extra_state(0)

    @property
    def full(self) -> bool:
        """Whether the queue has all its keys, so that the call compiles once."""
        return self._filled == self.queue_size

    def forward(self, queries: Tensor, keys: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            queries: [B, D] embeddings by the encoder, L2-normalised.
            keys: [B, D] embeddings of other views of the same samples by the momentum encoder, L2-normalised.
            labels: [B] integer classes; -1 is missing: positive to its own key only. None: all are (MoCo).

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: wrong shape, dtype or device, or a wrong setting of the module.
        """
        check_pairs("queries", queries, "keys", keys)
        labels = self._checked("queries", queries, labels)
        candidates = torch.cat([keys, self.queue[: self._filled]])
        classes = classes_of_pairs(torch.cat([labels, self.queue_labels[: self._filled]]))
        return cross_contrast_loss(
            queries.to(candidates.dtype),
            candidates,
            [Attribute(classes[: len(queries)], Equal(), keys=classes)],
            temperature=self.temperature,
            reduction=self.reduction,
            impl=self.impl,
        )

    @torch.no_grad()
    def enqueue(self, keys: Tensor, labels: Tensor | None = None) -> None:
        """Put keys into the queue, detached; they push the oldest out. Call it after the backward pass.

        Args:
            keys: [B, D] of the batch, or in distributed training of all processes; B <= Q.
            labels: [B] their integer classes; -1 is missing. None: all are.

        Raises:
            TypeError: an argument is not a tensor.
            ValueError: wrong shape, dtype or device.
        """
        check_features("keys", keys, "[B, D]")
        labels = self._checked("keys", keys, labels)
        if len(keys) > self.queue_size:
            raise ValueError(f"keys must be at most queue_size = {self.queue_size}, got {len(keys)}")
        seen = self._keys_seen + len(keys)
        places = torch.arange(self._keys_seen, seen, device=keys.device) % self.queue_size
        self.queue[places] = keys.to(self.queue.dtype)
        self.queue_labels[places] = labels
        self.set_extra_state(seen)

    def _checked(self, name: str, features: Tensor, labels: Tensor | None) -> Tensor:
        """Raise an error naming the argument unless both fit the queue; return int64 labels."""
        if features.shape[1] != self.feature_size:
            wanted = f"[B, {self.feature_size}], D = feature_size"
            raise ValueError(f"{name} must be {wanted}, got shape {list(features.shape)}")
        check_device(name, features, "the queue", self.queue)
        if labels is None:
            return features.new_full((len(features),), -1, dtype=torch.int64)
        check_labels("labels", labels, "[B]", len(features))
        if labels.is_floating_point():
            raise ValueError(f"labels must be integers, got {labels.dtype}")
        check_device("labels", labels, "the queue", self.queue)
        return labels.long()

    def get_extra_state(self) -> Tensor:
        """Return the number of keys that have come, for ``state_dict``."""
        return torch.tensor(self._keys_seen)

    def set_extra_state(self, state: Tensor | int) -> None:
        """Take the number of keys that have come, from ``load_state_dict``."""
        self._keys_seen = int(state)  # Python numbers: reading them does not wait for a device
        self._filled = min(self._keys_seen, self.queue_size)  # all that forward reads: constant once full
