// The device on which an operator runs: made current, with its stream and memory. With MMCUDA_SIMT the CPU plays it.

#pragma once

#include "../tensors.h"
#include "limits.h"

#ifdef MMCUDA_SIMT
#define MMCUDA_DEVICE_LIBRARY(m) STABLE_TORCH_LIBRARY_IMPL(mmcuda_simt, CPU, m)
#else
#include <torch/csrc/stable/accelerator.h>

// In libtorch_cuda: null beside a torch that is built without CUDA, whose tensors never get here. (Its successor,
// Stream::nativeHandle, is in every libtorch, but only from torch 2.13 on.)
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index,
                                                                                   void** ret_stream);

#define MMCUDA_DEVICE_LIBRARY(m) STABLE_TORCH_LIBRARY_IMPL(mmcuda, CUDA, m)
#endif

namespace mmcuda {

#ifdef MMCUDA_SIMT

class Device {
 public:
  explicit Device(const Tensor&) {}

  Tensor empty(IntHeaderOnlyArrayRef sizes, ScalarType dtype) const { return empty_cpu(sizes, dtype); }
  void* stream() const { return nullptr; }
  DeviceLimits limits() const { return {3, 164 * 1024}; }
};

#else

class Device {
 public:
  explicit Device(const Tensor& tensor) : index_(tensor.get_device_index()), guard_(index_) {}

  Tensor empty(IntHeaderOnlyArrayRef sizes, ScalarType dtype) const {
    return mmcuda::empty(sizes, dtype, aoti_torch_device_type_cuda(), index_);
  }
  void* stream() const {
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    return stream;
  }
  DeviceLimits limits() const { return device_limits(index_); }

 private:
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
};

#endif

// After a launch.
inline void check(const char* error) { STD_TORCH_CHECK(!error, "CUDA error in a kernel of mmcuda: ", error); }

}  // namespace mmcuda
