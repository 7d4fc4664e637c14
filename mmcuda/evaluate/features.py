"""Features of a frozen encoder."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

Features = npt.NDArray[np.float32]


@torch.inference_mode()
def extract_features(
    encoder: nn.Module, images: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], batch_size: int = 256
) -> Features:
    """Return the outputs of ``encoder`` in eval mode (BatchNorm uses its running statistics).

    Args:
        encoder: maps [B, C, H, W] images in 0..1 to [B, F]; runs on the device of its weights.
        images: [N, C, H, W] uint8, may be memory-mapped.
        rows: [n] indices into ``images``.
        batch_size: images at a time.

    Returns:
        [n, F].
    """
    device = next(encoder.parameters()).device
    encoder.eval()
    outputs = []
    for start in range(0, len(rows), batch_size):
        batch = torch.from_numpy(images[rows[start : start + batch_size]]).to(device)
        outputs.append(encoder(batch.float() / 255).float().cpu().numpy())
    return np.concatenate(outputs)


def to_device(encoder: nn.Module, device: torch.device) -> nn.Module:
    """Return the encoder on ``device``, in the memory format that convolutions are fastest in."""
    return encoder.to(device).to(memory_format=torch.channels_last)
