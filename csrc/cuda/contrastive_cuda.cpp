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
  in.dtype = dtype_of(features.anchors.scalar_type(), allow_tf32);
  in.rows = features.anchors.const_data_ptr();
  in.columns = features.keys ? features.keys->const_data_ptr() : nullptr;
  in.n = features.n;
  in.m = features.m;
  in.d = features.d;
  in.anchor_offset = features.anchor_offset.value_or(-1);
  in.sets = static_cast<int>(attributes.count());
  for (int k = 0; k < in.sets; ++k) {
    in.weights[k] = weights[k];
    if (k == attributes.order_intervals.size(0)) continue;  // the mask
    LabelInput& label = in.labels[k];
    label.intervals = attributes.intervals(k);
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
  settings.sincere = args.sincere;
  settings.symmetric = args.symmetric;
  settings.reduction = !args.reduced ? Reduction::kNone : args.mean ? Reduction::kMean : Reduction::kSum;
  return settings;
}

// The gradient of anchors or keys: its tensor, empty if it is not wanted, and then no pointer.
struct Gradient {
  Tensor tensor;
  void* data;

  Gradient(const Device& device, const Tensor& like, bool wanted)
      : tensor(wanted ? device.empty(like.sizes(), like.scalar_type())
                      : device.empty({0, like.size(like.dim() - 1)}, like.scalar_type())),
        data(wanted ? tensor.mutable_data_ptr() : nullptr) {}
};

std::tuple<Tensor, Tensor, Tensor, Tensor> contrastive_fwd_cuda(
    const Tensor& anchors, const std::optional<Tensor>& keys, const Tensor& temperature, const Tensor& intervals,
    const std::optional<Tensor>& relation_data, std::vector<int64_t> words, const std::optional<Tensor>& mask,
    std::vector<double> weights, std::optional<int64_t> anchor_offset, std::string positives, std::string denominator,
    bool symmetric, std::string reduction, bool allow_tf32, bool /*keep: recomputing costs less than memory traffic*/) {
  const ContrastiveArguments args(anchors, keys, temperature, intervals, relation_data, std::move(words), mask,
                                  std::move(weights), anchor_offset, positives, denominator, symmetric, reduction);
  const Device device(anchors);
  Inputs inputs = inputs_of(args.features, args.attributes, args.weights, allow_tf32, device);
  const ContrastiveSettings settings = settings_of(args);
  Tensor loss = args.reduced ? device.empty({}, args.dtype()) : device.empty({args.losses()}, args.dtype());
  Tensor saved_lse = device.empty({args.family().saved_rows(), args.losses()}, args.dtype());
  Tensor positive_counts = device.empty({args.sets(), args.losses()}, ScalarType::Double);
  const Tensor workspace = lend_workspace(device, contrastive_forward_workspace(inputs, settings), inputs);
  check(contrastive_forward(inputs, settings, loss.mutable_data_ptr(), saved_lse.mutable_data_ptr(),
                            positive_counts.mutable_data_ptr<double>()));
  return {loss, saved_lse, positive_counts, device.empty({0, kBlockPairs}, args.dtype())};
}

std::tuple<Tensor, Tensor> contrastive_bwd_cuda(const Tensor& grad_loss, const Tensor& saved_lse,
                                                const Tensor& positive_counts, const Tensor& /*dots*/,
                                                bool need_anchors, bool need_keys, const Tensor& anchors,
                                                const std::optional<Tensor>& keys, const Tensor& temperature,
                                                const Tensor& intervals, const std::optional<Tensor>& relation_data,
                                                std::vector<int64_t> words, const std::optional<Tensor>& mask,
                                                std::vector<double> weights, std::optional<int64_t> anchor_offset,
                                                std::string positives, std::string denominator, bool symmetric,
                                                std::string reduction, bool allow_tf32) {
  const ContrastiveArguments args(anchors, keys, temperature, intervals, relation_data, std::move(words), mask,
                                  std::move(weights), anchor_offset, positives, denominator, symmetric, reduction);
  const Saved saved(args, grad_loss, saved_lse, positive_counts);
  const Device device(anchors);
  Inputs inputs = inputs_of(args.features, args.attributes, args.weights, allow_tf32, device);
  const ContrastiveSettings settings = settings_of(args);
  Gradient of_anchors(device, args.features.anchors, need_anchors);
  Gradient of_keys(device, args.features.keys.value_or(args.features.anchors), need_keys && keys);
  const Tensor workspace = lend_workspace(device, contrastive_backward_workspace(inputs, settings), inputs);
  check(contrastive_backward(inputs, settings, saved.grad_loss.const_data_ptr(), saved.saved_lse.const_data_ptr(),
                             saved.positive_counts.const_data_ptr<double>(), of_anchors.data, of_keys.data));
  return {of_anchors.tensor, of_keys.tensor};
}

std::tuple<Tensor, Tensor> pair_margin_fwd_cuda(const Tensor& anchors, const std::optional<Tensor>& keys,
                                                const Tensor& intervals, const std::optional<Tensor>& relation_data,
                                                std::vector<int64_t> words, std::vector<double> weights,
                                                std::optional<int64_t> anchor_offset, double margin, bool allow_tf32) {
  const PairMarginArguments args(anchors, keys, intervals, relation_data, std::move(words), std::move(weights),
                                 anchor_offset, margin);
  const Device device(anchors);
  Inputs inputs = inputs_of(args.features, args.attributes, args.weights, allow_tf32, device);
  Tensor losses = device.empty({args.features.n}, args.dtype());
  Tensor positive_counts = device.empty({args.attributes.count(), args.features.n}, ScalarType::Double);
  const Tensor workspace = lend_workspace(device, pair_margin_forward_workspace(inputs), inputs);
  check(pair_margin_forward(inputs, margin, losses.mutable_data_ptr(), positive_counts.mutable_data_ptr<double>()));
  return {losses, positive_counts};
}

std::tuple<Tensor, Tensor> pair_margin_bwd_cuda(const Tensor& grad_losses, bool need_anchors, bool need_keys,
                                                const Tensor& anchors, const std::optional<Tensor>& keys,
                                                const Tensor& intervals, const std::optional<Tensor>& relation_data,
                                                std::vector<int64_t> words, std::vector<double> weights,
                                                std::optional<int64_t> anchor_offset, double margin, bool allow_tf32) {
  const PairMarginArguments args(anchors, keys, intervals, relation_data, std::move(words), std::move(weights),
                                 anchor_offset, margin);
  const Tensor grads = args.contiguous_grad(grad_losses);
  const Device device(anchors);
  Inputs inputs = inputs_of(args.features, args.attributes, args.weights, allow_tf32, device);
  Gradient of_anchors(device, args.features.anchors, need_anchors);
  Gradient of_keys(device, args.features.keys.value_or(args.features.anchors), need_keys && keys);
  const Tensor workspace = lend_workspace(device, pair_margin_backward_workspace(inputs), inputs);
  check(pair_margin_backward(inputs, margin, grads.const_data_ptr(), of_anchors.data, of_keys.data));
  return {of_anchors.tensor, of_keys.tensor};
}

}  // namespace
}  // namespace mmcuda

MMCUDA_DEVICE_LIBRARY(m) {
  m.impl("contrastive_fwd", TORCH_BOX(&mmcuda::contrastive_fwd_cuda));
  m.impl("contrastive_bwd", TORCH_BOX(&mmcuda::contrastive_bwd_cuda));
  m.impl("pair_margin_fwd", TORCH_BOX(&mmcuda::pair_margin_fwd_cuda));
  m.impl("pair_margin_bwd", TORCH_BOX(&mmcuda::pair_margin_bwd_cuda));
}
