"""Export of a model for other programs: weights as safetensors, or the whole computation as ONNX. No pickle."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mmcuda.models.description import DESCRIPTION
from mmcuda.models.heads import Classifier
from mmcuda.models.storage import save_weights
from mmcuda.predict.config import ExportConfig
from mmcuda.predict.model import Model, load
from mmcuda.targets import logit_columns
from mmcuda.train.folder import new_folder, write_json
from mmcuda.train.screen import LABEL

ONNX = "model.onnx"
LARGEST = 2**30  # bytes of weights that lie in the file itself, whose format ends at 2 GiB; larger ones lie beside it


class Computation(nn.Module):
    """What the ONNX file computes: uint8 images [N, C, S, S] to features [N, F] and predictions [N, outputs]."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.linear = model.module.linear if isinstance(model.module, Classifier) else None
        self.targets = model.targets

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return features, and predictions if there is a classifier."""
        features = self.encoder(images.float() / 255)
        if self.linear is None:
            return (features,)
        logits, columns = self.linear(features), logit_columns(self.targets)
        parts = [target.activate_tensor(logits[:, columns[name]]) for name, target in self.targets.items()]
        return features, torch.cat(parts, dim=1)


def export_command(checkpoint: Path, options: ExportConfig, out: Path) -> None:
    """Write the model of a checkpoint and its description (config.json) into the new folder ``out``.

    safetensors: the weights as model.safetensors; ``mmcuda.load`` reads the folder. onnx: model.onnx, from uint8 images
    [N, C, S, S], N free, to ``features`` [N, F] and, with a classifier, ``probabilities`` [N, outputs]
    (``predictions`` where one is a number).

    Raises:
        UserError: if ``out`` exists or cannot be written, or there is no checkpoint.
    """
    model = load(checkpoint, device="cpu")
    with new_folder(out) as folder:
        write_json(folder / DESCRIPTION, model.description.as_json())
        if options.format == "safetensors":
            prefix = "" if model.targets else "encoder."
            save_weights(folder, {f"{prefix}{name}": weight for name, weight in model.module.state_dict().items()})
        else:
            export_onnx(model, folder / ONNX)
    print(f"{options.format:<{LABEL + 3}}{out}   {model}")


def export_onnx(model: Model, path: Path) -> None:
    """Write what ``Computation`` computes as an ONNX file."""
    import onnxscript  # noqa: F401  # that torch needs for it: named here if it is missing

    description = model.description
    size = description.image_size
    example = torch.zeros(2, len(description.channels), size, size, dtype=torch.uint8)  # of 0 or 1 N would not be free
    weights = sum(weight.nbytes for weight in model.module.state_dict().values())
    named = "probabilities" if all(target.classes for target in model.targets.values()) else "predictions"
    names = ["features", named] if model.targets else ["features"]
    torch.onnx.export(
        Computation(model).eval(),
        (example,),
        path,
        input_names=["images"],
        output_names=names,
        dynamic_shapes={"images": {0: torch.export.Dim("N")}},
        external_data=weights > LARGEST,
        dynamo=True,
        verbose=False,
    )
