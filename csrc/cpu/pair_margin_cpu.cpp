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

std::tuple<Tensor, Tensor> pair_margin_fwd_cpu(const Tensor& rows, const std::optional<Tensor>& columns,
                                               const Tensor& ranks, const std::optional<Tensor>& relation_data,
                                               std::vector<int64_t> words, std::vector<double> weights,
                                               std::optional<int64_t> self_offset, double margin, bool /*allow_tf32*/) {
  const PairMarginArguments args(rows, columns, ranks, relation_data, std::move(words), std::move(weights), self_offset,
                                 margin);
  Tensor losses = empty_cpu({args.features.n}, args.dtype());
  Tensor totals = empty_cpu({args.attributes.count(), args.features.n}, ScalarType::Double);
  dispatch(rows.scalar_type(), [&]<class T>(const Kernels<T>& kernels) {
    Pass<T> pass(args, kernels);
    pass.count_positives(args.attributes, args.features.n, totals.mutable_data_ptr<double>());
    std::vector<double> loss(pass.batch.items, 0.);
    pass.terms.loss = loss.data();
    pass.for_each_block_pair([&](int64_t i, int64_t j, int64_t) { pass.kernel.margin(pass.batch, pass.terms, i, j); });
    T* out = losses.mutable_data_ptr<T>();
    const double pairs = std::max(args.features.row_pairs(), 1.);
    for (int64_t i = 0; i < args.features.n; ++i) {
      out[i] = pass.poisoned(i) ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(loss[i] / pairs);
    }
  });
  return {losses, totals};
}

// dL/dx_i = 2 / pairs sum_j B_ij (x_i - y_j): the kernel leaves -B Y and the sums of B.
std::tuple<Tensor, Tensor> pair_margin_bwd_cpu(const Tensor& grad_losses, bool need_rows, bool need_columns,
                                               const Tensor& rows, const std::optional<Tensor>& columns,
                                               const Tensor& ranks, const std::optional<Tensor>& relation_data,
                                               std::vector<int64_t> words, std::vector<double> weights,
                                               std::optional<int64_t> self_offset, double margin, bool /*allow_tf32*/) {
  const PairMarginArguments args(rows, columns, ranks, relation_data, std::move(words), std::move(weights), self_offset,
                                 margin);
  const Features& features = args.features;
  const Tensor grads = args.upstream(grad_losses);
  std::tuple<Tensor, Tensor> result;
  dispatch(rows.scalar_type(), [&]<class T>(const Kernels<T>& kernels) {
    Pass<T> pass(args, kernels);
    const Batch<T>& batch = pass.batch;
    T* upstream = pass.per_item(1);
    std::copy_n(grads.const_data_ptr<T>(), features.n, upstream);
    std::vector<double> sum(batch.items, 0.);
    const int64_t column_block = batch.column_begin / kBlock;
    const Tensor& others = features.self() ? features.rows : *features.columns;
    Tensor grad_rows = pass.start_gradient(need_rows, features.rows, 0);
    Tensor grad_columns = pass.start_gradient(need_columns && columns, others, column_block);
    pass.terms.upstream = upstream;
    pass.terms.gradient = pass.gradient_blocks();
    pass.terms.grad_rows = need_rows;
    pass.terms.grad_columns = features.self() ? need_rows : need_columns;
    pass.terms.sum = sum.data();
    pass.for_each_block_pair(
        [&](int64_t i, int64_t j, int64_t) { pass.kernel.margin_backward(batch, pass.terms, i, j); });
    const T scale = static_cast<T>(2 / std::max(features.row_pairs(), 1.));
    const auto finish = [&](Tensor& gradient, const Tensor& of, int64_t first_block) {
      pass.finish_gradient(gradient, first_block, [&](int64_t i, T* row) {
        const T b = static_cast<T>(sum[first_block * kBlock + i]);
        for (int64_t k = 0; k < batch.d; ++k) row[k] = scale * (b * read<T>(of, i * batch.d + k) + row[k]);
      });
    };
    finish(grad_rows, features.rows, 0);
    finish(grad_columns, others, column_block);
    result = {grad_rows, grad_columns};
  });
  return result;
}

}  // namespace
}  // namespace mmcuda

STABLE_TORCH_LIBRARY_IMPL(mmcuda, CPU, m) {
  m.impl("pair_margin_fwd", TORCH_BOX(&mmcuda::pair_margin_fwd_cpu));
  m.impl("pair_margin_bwd", TORCH_BOX(&mmcuda::pair_margin_bwd_cpu));
}
