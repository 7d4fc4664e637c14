// Label values to intervals (see ../contrastive.h) on the device: a sort per attribute and a kernel.

#include <torch/csrc/stable/library.h>

#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "../arguments.h"
#include "device.h"
#include "labels.h"

namespace mmcuda {
namespace {

// Values in ascending order, NaN last, and whose they are.
std::pair<Tensor, Tensor> sort(const Tensor& values) {
  using torch::stable::detail::from;
  std::array<StableIValue, 4> stack{from(values), from(std::optional<bool>(true)), from(int64_t{0}), from(false)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

Tensor label_intervals_cuda(const std::vector<Tensor>& labels, const std::vector<double>& tolerances, int64_t views) {
  check_labels(labels, tolerances, views);
  const Device device(labels[0]);
  const int64_t samples = labels[0].numel(), items = samples * views;
  Tensor result = device.empty({static_cast<int64_t>(labels.size()), 3, items}, ScalarType::Int);
  auto* out = result.mutable_data_ptr<int32_t>();
  for (size_t k = 0; samples > 0 && k < labels.size(); ++k, out += 3 * items) {
    const auto [sorted, sample_of] = sort(labels[k]);
    const auto intervals = [&]<class V>(V tolerance) {
      check(label_intervals(sorted.const_data_ptr<V>(), sample_of.const_data_ptr<int64_t>(), samples, views, tolerance,
                            out, device.stream()));
    };
    if (sorted.scalar_type() == ScalarType::Long) {
      intervals(int64_t{0});
    } else {
      intervals(tolerances[k]);
    }
  }
  return result;
}

}  // namespace
}  // namespace mmcuda

MMCUDA_DEVICE_LIBRARY(m) { m.impl("label_intervals", TORCH_BOX(&mmcuda::label_intervals_cuda)); }
