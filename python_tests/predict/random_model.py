"""A classifier with random weights, as a checkpoint and an export hold it."""

import json

import torch

from mmcuda.models.description import DESCRIPTION, ModelDescription
from mmcuda.models.encoder import build_encoder
from mmcuda.models.heads import Classifier
from mmcuda.models.storage import save_weights
from mmcuda.targets import Binary

SIZE = 32


def write_model(folder, channels=("grey",), reader="files-v1-1", targets=("drusen", "fluid"), **others):
    """Write the model into a new folder and return that."""
    torch.manual_seed(0)
    encoder = build_encoder("darknet_tiny", len(channels), SIZE)
    kinds = dict.fromkeys(targets, Binary())
    classifier = Classifier(encoder, kinds or {"none": Binary()})
    torch.nn.init.normal_(classifier.linear.weight)
    folder.mkdir()
    save_weights(folder, {k: v for k, v in classifier.state_dict().items() if targets or k.startswith("encoder.")})
    description = ModelDescription("darknet_tiny", SIZE, channels, reader, targets=kinds, **others)
    (folder / DESCRIPTION).write_text(json.dumps(description.as_json()))
    return folder
