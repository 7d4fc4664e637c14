// Python module mmcuda._simt: loading it registers torch.ops.mmcuda_simt, the CUDA operators for tensors of the CPU.

#include <pybind11/pybind11.h>

PYBIND11_MODULE(_simt, m) { m.doc() = "The CUDA kernels of mmcuda, run on the CPU."; }
