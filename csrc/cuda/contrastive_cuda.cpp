// Host side of the losses on the device: from an operator's tensors to launch.h. Nothing waits for the device.

#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>
#include <utility>

#include "../arguments.h"
#include "device.h"
#include "launch.h"

namespace mmcuda {
namespace {

Dtype dtype_of(ScalarType features, bool allow_tf32) {
  if (features == ScalarType::BFloat16) return Dtype::kBfloat16;
  if (features == ScalarType::Half) return Dtype::kFloat16;
  if (features == ScalarType::Float) return allow_tf32 ? Dtype::kFloat32AsTf32 : Dtype::kFloat32;
  STD_TORCH_CHECK(features == ScalarType::Double, "features must be float16, bfloat16, float32 or float64");
  return Dtype::kFloat64;
}

Inputs inputs_of(const Features& features, const Attributes& attributes, const std::vector<double>& weights,
                 bool allow_tf32, const Device& device) {
  STD_TORCH_CHECK(attributes.count() <= kMostSets, "attributes must be at most ", kMostSets, " on CUDA, got ",
                  attributes.count());
  Inputs in{};
  in.dtype = dtype_of(features.rows.scalar_type(), allow_tf32);
  in.rows = features.rows.const_data_ptr();
  in.columns = features.columns ? features.columns->const_data_ptr() : nullptr;
  in.n = features.n;
  in.m = features.m;
  in.d = features.d;
  in.self_offset = features.self_offset.value_or(-1);
  in.sets = static_cast<int>(attributes.count());
  for (int k = 0; k < in.sets; ++k) {
    in.weights[k] = weights[k];
    if (k == attributes.ranks.size(0)) continue;  // the mask
    LabelInput& label = in.labels[k];
    label.ranks = attributes.intervals(k);
    label.values = attributes.values(k);
    label.bits = attributes.bits(k);
    label.words = attributes.words[k];
  }
  if (attributes.mask) {
    in.mask = attributes.mask->const_data_ptr();
    in.mask_rows = attributes.mask->size(0);
    in.mask_columns = attributes.mask->size(1);
  }
  in.limits = device.limits();
  in.stream = device.stream();
  return in;
}

// Lends the inputs this many bytes, for as long as the result lives.
Tensor lend_workspace(const Device& device, size_t bytes, Inputs& inputs) {
  Tensor workspace = device.empty({static_cast<int64_t>(bytes)}, ScalarType::Byte);
  inputs.workspace = workspace.mutable_data_ptr();
  return workspace;
}

ContrastiveSettings settings_of(const ContrastiveArguments& args) {
  ContrastiveSettings settings{};
  settings.temperature = args.temperature.const_data_ptr();
  settings.double_temperature = args.temperature.scalar_type() == ScalarType::Double;
  settings.inside = args.inside;
  settings.all = args.all;
  settings.one_positive = args.one_positive;
  settings.both_ways = args.both_ways;
  settings.reduction = !args.reduced ? Reduction::kNone : args.mean ? Reduction::kMean : Reduction::kSum;
  return settings;
}

// The gradient of rows or columns: its tensor, empty if it is not wanted, and then no pointer.
struct Gradient {
  Tensor tensor;
  void* data;

  Gradient(const Device& device, const Tensor& like, bool wanted)
      : tensor(wanted ? device.empty(like.sizes(), like.scalar_type())
                      : device.empty({0, like.size(like.dim() - 1)}, like.scalar_type())),
        data(wanted ? tensor.mutable_data_ptr() : nullptr) {}
};

std::tuple<Tensor, Tensor, Tensor, Tensor> contrastive_fwd_cuda(
    const Tensor& rows, const std::optional<Tensor>& columns, const Tensor& temperature, const Tensor& ranks,
    const std::optional<Tensor>& relation_data, std::vector<int64_t> words, const std::optional<Tensor>& mask,
    std::vector<double> weights, std::optional<int64_t> self_offset, std::string positives, std::string denominator,
    bool both_ways, std::string reduction, bool allow_tf32, bool /*keep: recomputing costs less than memory traffic*/) {
  const ContrastiveArguments args(rows, columns, temperature, ranks, relation_data, std::move(words), mask,
                                  std::move(weights), self_offset, positives, denominator, both_ways, reduction);
  const Device device(rows);
  Inputs inputs = inputs_of(args.features, args.attributes, args.weights, allow_tf32, device);
  const ContrastiveSettings settings = settings_of(args);
  Tensor loss = args.reduced ? device.empty({}, args.dtype()) : device.empty({args.anchors()}, args.dtype());
  Tensor statistics = device.empty({args.statistics(), args.anchors()}, args.dtype());
  Tensor totals = device.empty({args.sets(), args.anchors()}, ScalarType::Double);
  const Tensor workspace = lend_workspace(device, contrastive_forward_workspace(inputs, settings), inputs);
  check(contrastive_forward(inputs, settings, loss.mutable_data_ptr(), statistics.mutable_data_ptr(),
                            totals.mutable_data_ptr<double>()));
  return {loss, statistics, totals, device.empty({0, kBlockPairs}, args.dtype())};
}

std::tuple<Tensor, Tensor> contrastive_bwd_cuda(
    const Tensor& grad_loss, const Tensor& statistics, const Tensor& totals, const Tensor& /*dots*/, bool need_rows,
    bool need_columns, const Tensor& rows, const std::optional<Tensor>& columns, const Tensor& temperature,
    const Tensor& ranks, const std::optional<Tensor>& relation_data, std::vector<int64_t> words,
    const std::optional<Tensor>& mask, std::vector<double> weights, std::optional<int64_t> self_offset,
    std::string positives, std::string denominator, bool both_ways, std::string reduction, bool allow_tf32) {
  const ContrastiveArguments args(rows, columns, temperature, ranks, relation_data, std::move(words), mask,
                                  std::move(weights), self_offset, positives, denominator, both_ways, reduction);
  const Saved saved(args, grad_loss, statistics, totals);
  const Device device(rows);
  Inputs inputs = inputs_of(args.features, args.attributes, args.weights, allow_tf32, device);
  const ContrastiveSettings settings = settings_of(args);
  Gradient of_rows(device, args.features.rows, need_rows);
  Gradient of_columns(device, args.features.columns.value_or(args.features.rows), need_columns && columns);
  const Tensor workspace = lend_workspace(device, contrastive_backward_workspace(inputs, settings), inputs);
  check(contrastive_backward(inputs, settings, saved.grad_loss.const_data_ptr(), saved.statistics.const_data_ptr(),
                             saved.totals.const_data_ptr<double>(), of_rows.data, of_columns.data));
  return {of_rows.tensor, of_columns.tensor};
}

std::tuple<Tensor, Tensor> pair_margin_fwd_cuda(const Tensor& rows, const std::optional<Tensor>& columns,
                                                const Tensor& ranks, const std::optional<Tensor>& relation_data,
                                                std::vector<int64_t> words, std::vector<double> weights,
                                                std::optional<int64_t> self_offset, double margin, bool allow_tf32) {
  const PairMarginArguments args(rows, columns, ranks, relation_data, std::move(words), std::move(weights), self_offset,
                                 margin);
  const Device device(rows);
  Inputs inputs = inputs_of(args.features, args.attributes, args.weights, allow_tf32, device);
  Tensor losses = device.empty({args.features.n}, args.dtype());
  Tensor totals = device.empty({args.attributes.count(), args.features.n}, ScalarType::Double);
  const Tensor workspace = lend_workspace(device, pair_margin_forward_workspace(inputs), inputs);
  check(pair_margin_forward(inputs, margin, losses.mutable_data_ptr(), totals.mutable_data_ptr<double>()));
  return {losses, totals};
}

std::tuple<Tensor, Tensor> pair_margin_bwd_cuda(const Tensor& grad_losses, bool need_rows, bool need_columns,
                                                const Tensor& rows, const std::optional<Tensor>& columns,
                                                const Tensor& ranks, const std::optional<Tensor>& relation_data,
                                                std::vector<int64_t> words, std::vector<double> weights,
                                                std::optional<int64_t> self_offset, double margin, bool allow_tf32) {
  const PairMarginArguments args(rows, columns, ranks, relation_data, std::move(words), std::move(weights), self_offset,
                                 margin);
  const Tensor grads = args.upstream(grad_losses);
  const Device device(rows);
  Inputs inputs = inputs_of(args.features, args.attributes, args.weights, allow_tf32, device);
  Gradient of_rows(device, args.features.rows, need_rows);
  Gradient of_columns(device, args.features.columns.value_or(args.features.rows), need_columns && columns);
  const Tensor workspace = lend_workspace(device, pair_margin_backward_workspace(inputs), inputs);
  check(pair_margin_backward(inputs, margin, grads.const_data_ptr(), of_rows.data, of_columns.data));
  return {of_rows.tensor, of_columns.tensor};
}

}  // namespace
}  // namespace mmcuda

MMCUDA_DEVICE_LIBRARY(m) {
  m.impl("contrastive_fwd", TORCH_BOX(&mmcuda::contrastive_fwd_cuda));
  m.impl("contrastive_bwd", TORCH_BOX(&mmcuda::contrastive_bwd_cuda));
  m.impl("pair_margin_fwd", TORCH_BOX(&mmcuda::pair_margin_fwd_cuda));
  m.impl("pair_margin_bwd", TORCH_BOX(&mmcuda::pair_margin_bwd_cuda));
}
