"""The launchers as ctypes sees them: structures of csrc/cuda/launch.h, functions of csrc/simt/entry.cpp."""

import ctypes

DTYPES = ["bfloat16", "float16", "float32", "tf32", "float64"]  # in the order of Dtype


class LabelInput(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("ranks", "values", "bits")] + [("words", ctypes.c_int64)]


class Inputs(ctypes.Structure):
    _fields_ = [
        ("dtype", ctypes.c_int),
        ("rows", ctypes.c_void_p),
        ("columns", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("m", ctypes.c_int64),
        ("d", ctypes.c_int64),
        ("self_offset", ctypes.c_int64),
        ("sets", ctypes.c_int),
        ("labels", LabelInput * 16),
        ("weights", ctypes.c_double * 16),
        ("mask", ctypes.c_void_p),
        ("mask_rows", ctypes.c_int64),
        ("mask_columns", ctypes.c_int64),
        ("multiprocessors", ctypes.c_int),
        ("shared_memory", ctypes.c_int),
        ("workspace", ctypes.c_void_p),
        ("stream", ctypes.c_void_p),
    ]


class Settings(ctypes.Structure):
    _fields_ = [
        ("temperature", ctypes.c_void_p),
        *((name, ctypes.c_bool) for name in ("double_temperature", "inside", "all", "one_positive", "both_ways")),
        ("reduction", ctypes.c_int),
    ]


def load(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    for name in ("forward", "backward"):
        for loss in ("contrastive", "pair_margin"):
            getattr(library, f"check_{loss}_{name}").restype = ctypes.c_char_p
            getattr(library, f"check_{loss}_workspace").restype = ctypes.c_size_t
    library.check_inputs_size.restype = ctypes.c_size_t
    assert library.check_inputs_size() == ctypes.sizeof(Inputs), "compare.py and launch.h differ"
    return library
