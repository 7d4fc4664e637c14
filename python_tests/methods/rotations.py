"""A method outside the package: the encoder learns by how many quarter turns an image was rotated."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from mmcuda.errors import check_positive
from mmcuda.methods import Method, register_method


@register_method
@dataclass(frozen=True)
class Rotations(Method):
    name = "rotations"
    summary = "predicting how far an image was rotated (Gidaris et al. 2018)"
    color = "#f0e442"
    marker = "p"

    smoothing: float = 0.1
    """Share of the label that all four rotations get."""

    def __post_init__(self):
        check_positive(f"{self.name}.smoothing", self.smoothing)

    def build(self, encoder, cohort):
        return nn.Sequential(OrderedDict(encoder=encoder, head=nn.Linear(encoder.num_features, 4)))

    def loss(self, model, batch):
        turned = torch.cat([batch.inputs["image"][:, 0].rot90(turns, (-2, -1)) for turns in range(4)])
        turns = torch.arange(4).repeat_interleave(len(batch.inputs["image"])).to(turned.device)
        return F.cross_entropy(model(turned), turns, label_smoothing=self.smoothing)
