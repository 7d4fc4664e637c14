// Host side of the pair margin loss on the CPU. The maths is in contrastive.h.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "workspace.h"

namespace mmcuda {
namespace {

template <class T>
struct Pass : Workspace<T> {
  std::vector<T> weights;
  MarginTerms<T> terms{};

  Pass(const PairMarginArguments& args, const Kernels<T>& kernels)
      : Workspace<T>(args.features, kernels), weights(args.weights.begin(), args.weights.end()) {
    this->pack_features();
    this->expand_labels(args.attributes);
    terms.margin = static_cast<T>(args.margin);
    terms.weights = weights.data();
  }
};

// Element e of a tensor of features in the dtype of the computation.
template <class T>
T read(const Tensor& features, int64_t e) {
  if (features.scalar_type() != ScalarType::BFloat16) return static_cast<const T*>(features.const_data_ptr())[e];
  return __builtin_bit_cast(float, uint32_t{static_cast<const uint16_t*>(features.const_data_ptr())[e]} << 16);
}

std::tuple<Tensor, Tensor> pair_margin_fwd_cpu(const Tensor& anchors, const std::optional<Tensor>& keys,
                                               const Tensor& intervals, const std::optional<Tensor>& relation_data,
                                               std::vector<int64_t> words, std::vector<double> weights,
                                               std::optional<int64_t> anchor_offset, double margin,
                                               bool /*allow_tf32*/) {
  const PairMarginArguments args(anchors, keys, intervals, relation_data, std::move(words), std::move(weights),
                                 anchor_offset, margin);
  Tensor losses = empty_cpu({args.features.n}, args.dtype());
  Tensor positive_counts = empty_cpu({args.attributes.count(), args.features.n}, ScalarType::Double);
  dispatch(anchors.scalar_type(), [&]<class T>(const Kernels<T>& kernels) {
    Pass<T> pass(args, kernels);
    pass.count_positives(args.attributes, args.features.n, positive_counts.mutable_data_ptr<double>());
    std::vector<double> loss(pass.batch.items, 0.);
    pass.terms.loss = loss.data();
    pass.for_each_block_pair([&](int64_t i, int64_t j, int64_t) { pass.kernel.margin(pass.batch, pass.terms, i, j); });
    T* out = losses.mutable_data_ptr<T>();
    const double pairs = std::max(args.features.anchor_pairs(), 1.);
    for (int64_t i = 0; i < args.features.n; ++i) {
      out[i] = pass.nonfinite(i) ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(loss[i] / pairs);
    }
  });
  return {losses, positive_counts};
}

// dL/dx_i = 2 / pairs sum_j B_ij (x_i - y_j): the kernel leaves -B Y and the sums of B.
std::tuple<Tensor, Tensor> pair_margin_bwd_cpu(const Tensor& grad_losses, bool need_anchors, bool need_keys,
                                               const Tensor& anchors, const std::optional<Tensor>& keys,
                                               const Tensor& intervals, const std::optional<Tensor>& relation_data,
                                               std::vector<int64_t> words, std::vector<double> weights,
                                               std::optional<int64_t> anchor_offset, double margin,
                                               bool /*allow_tf32*/) {
  const PairMarginArguments args(anchors, keys, intervals, relation_data, std::move(words), std::move(weights),
                                 anchor_offset, margin);
  const Features& features = args.features;
  const Tensor grads = args.contiguous_grad(grad_losses);
  std::tuple<Tensor, Tensor> result;
  dispatch(anchors.scalar_type(), [&]<class T>(const Kernels<T>& kernels) {
    Pass<T> pass(args, kernels);
    const Batch<T>& batch = pass.batch;
    T* grad_output = pass.per_item(1);
    std::copy_n(grads.const_data_ptr<T>(), features.n, grad_output);
    std::vector<double> sum(batch.items, 0.);
    const int64_t column_block = batch.column_begin / kBlock;
    const Tensor& others = features.self() ? features.anchors : *features.keys;
    Tensor grad_anchors = pass.start_gradient(need_anchors, features.anchors, 0);
    Tensor grad_keys = pass.start_gradient(need_keys && keys, others, column_block);
    pass.terms.grad_output = grad_output;
    pass.terms.gradient = pass.gradient_blocks();
    pass.terms.grad_rows = need_anchors;
    pass.terms.grad_columns = features.self() ? need_anchors : need_keys;
    pass.terms.sum = sum.data();
    pass.for_each_block_pair(
        [&](int64_t i, int64_t j, int64_t) { pass.kernel.margin_backward(batch, pass.terms, i, j); });
    const T scale = static_cast<T>(2 / std::max(features.anchor_pairs(), 1.));
    const auto finish = [&](Tensor& gradient, const Tensor& of, int64_t first_block) {
      pass.finish_gradient(gradient, first_block, [&](int64_t i, T* row) {
        const T b = static_cast<T>(sum[first_block * kBlock + i]);
        for (int64_t k = 0; k < batch.d; ++k) row[k] = scale * (b * read<T>(of, i * batch.d + k) + row[k]);
      });
    };
    finish(grad_anchors, features.anchors, 0);
    finish(grad_keys, others, column_block);
    result = {grad_anchors, grad_keys};
  });
  return result;
}

}  // namespace
}  // namespace mmcuda

STABLE_TORCH_LIBRARY_IMPL(mmcuda, CPU, m) {
  m.impl("pair_margin_fwd", TORCH_BOX(&mmcuda::pair_margin_fwd_cpu));
  m.impl("pair_margin_bwd", TORCH_BOX(&mmcuda::pair_margin_bwd_cpu));
}
