"""Using a trained model: probabilities and features of new images, export to other programs."""

from mmcuda.predict.model import Model, load

__all__ = ["Model", "load"]
