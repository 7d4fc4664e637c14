// Tensors of the host functions. torch::stable's own functions for these ask the dispatcher by name, which costs a
// microsecond each: as much as a small batch's kernels.

#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <vector>

#ifndef STABLE_TORCH_ERROR_CODE_CHECK  // before torch 2.13
#define STABLE_TORCH_ERROR_CODE_CHECK TORCH_ERROR_CODE_CHECK
#endif

namespace mmcuda {

using torch::headeronly::IntHeaderOnlyArrayRef;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// Not initialised.
inline Tensor empty(IntHeaderOnlyArrayRef sizes, ScalarType dtype, int32_t device_type, int32_t device_index) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  const auto code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(),
                                                         strides.data(), code, device_type, device_index, &handle));
  return Tensor(handle);
}

inline Tensor empty_cpu(IntHeaderOnlyArrayRef sizes, ScalarType dtype) {
  return empty(sizes, dtype, aoti_torch_device_type_cpu(), 0);
}

}  // namespace mmcuda
