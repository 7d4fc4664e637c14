// Python module mmcuda._C: loading it registers the operators; it tells how it was built.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "build_info.h"
#include "cpu/instruction_set.h"
#ifdef USE_CUDA
#include "cuda/limits.h"
#endif

namespace py = pybind11;

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "Native kernels of mmcuda.";
  m.def(
      "build_info",
      [] {
        std::vector<std::string> usable;
        for (const auto* set : mmcuda::usable_instruction_sets()) usable.emplace_back(set->name);
        py::dict info;
        info["compiler"] = MMCUDA_COMPILER;
        info["torch"] = MMCUDA_TORCH_VERSION;
        info["cpu"] = usable;
        info["cuda"] = MMCUDA_CUDA_STATUS;
        info["block"] = mmcuda::kBlock;
        info["max_saved_bytes"] = mmcuda::kMaxSavedBytes;
        info["max_cuda_attributes"] = mmcuda::kMostSets;
        info["cuda_architectures"] = MMCUDA_CUDA_ARCHITECTURES;
#ifdef USE_CUDA
        info["cuda_runtime"] = mmcuda::cuda_runtime_version();
        info["cuda_driver"] = mmcuda::cuda_driver_version();
#endif
        return info;
      },
      "How this library was built: compiler, torch, usable CPU instruction sets (fastest first), state of CUDA, its "
      "architectures as CMake writes them; rows of a CPU kernel's block, bytes of dot products that a forward saves, "
      "attributes that a loss may have on CUDA; and, if there are any, the versions of its CUDA runtime and of the "
      "driver here (13000 is 13.0, 0 none).");
  m.def("instruction_set", [] { return std::string(mmcuda::instruction_set().name); }, "The one in use.");
  m.def("set_instruction_set", &mmcuda::set_instruction_set, py::arg("name"),
        "Use another instruction set from build_info()['cpu'] (ValueError if there is no such one).");
}
