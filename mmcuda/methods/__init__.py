"""Pretraining methods, one file each. A registry holds them; other packages and your own code add to it."""

from mmcuda.methods.base import (
    Method,
    Methods,
    Role,
    check_options,
    encoder_name,
    get_method,
    make_method,
    register_method,
    registered_methods,
)
from mmcuda.methods.untrained import ImageNet, Random

from mmcuda.methods.simclr import SimCLR  # isort: skip  (registered in the order in which reports show them)
from mmcuda.methods.clinical import Clinical  # isort: skip
from mmcuda.methods.shuffled import Shuffled  # isort: skip

__all__ = [
    "Clinical",
    "ImageNet",
    "Method",
    "Methods",
    "Random",
    "Role",
    "Shuffled",
    "SimCLR",
    "check_options",
    "encoder_name",
    "get_method",
    "make_method",
    "register_method",
    "registered_methods",
]
