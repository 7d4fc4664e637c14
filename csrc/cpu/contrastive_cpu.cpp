// Host side of the contrastive losses on the CPU: which sums a variant needs, the passes over the block pairs, and the
// losses and gradients of the anchors from the sums. The maths is in contrastive.h.

#include <torch/csrc/stable/library.h>

#include <numeric>
#include <string>
#include <tuple>

#include "saved_logits.h"
#include "workspace.h"

namespace mmcuda {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kLn2 = 0.6931471805599453;

struct Arguments : ContrastiveArguments {
  double tau;

  explicit Arguments(ContrastiveArguments arguments)
      : ContrastiveArguments(std::move(arguments)),
        tau(temperature.scalar_type() == ScalarType::Float ? *temperature.const_data_ptr<float>()
                                                           : *temperature.const_data_ptr<double>()) {
    STD_TORCH_CHECK(tau > 0 && std::isfinite(tau), "temperature must be positive and finite, got ", tau);
  }
};

// The dot products of the first block pairs, saved from pass to pass and for the backward.
template <class T>
struct SavedLogits {
  T* data;  // [pairs, kBlock, kBlock]
  int64_t pairs;

  T* of(int64_t p) const { return p < pairs ? data + p * kBlockPairs : nullptr; }
};

// What forward and backward share: the features and labels, the exponential sums, and the place of each anchor in the
// saved_lse [S, A]: shift and sum of each exponential sum, then the mean sigmoids.
template <class T>
struct Pass : Workspace<T> {
  const Arguments& args;
  const LossFamily family;
  const double* positive_counts;  // [K, A] n_ki
  std::vector<ExponentialSum<T>> sums;

  Pass(const Arguments& arguments, const Kernels<T>& kernels, const double* totals_, bool dot_products)
      : Workspace<T>(arguments.features, kernels),
        args(arguments),
        family(arguments.family()),
        positive_counts(totals_) {
    this->batch.symmetric = args.symmetric;
    this->pack_features(dot_products);
    this->set_temperature(args.tau);
    this->expand_labels(args.attributes);
    for (int64_t k = 0; k < family.denominators(); ++k) add_sum(args.all ? Weight::kEvery : Weight::kUnrelated, k);
    for (int64_t k = 0; args.inside && k < args.sets(); ++k) add_sum(Weight::kRelated, k);
  }

  double total(int64_t k, int64_t anchor) const { return positive_counts[k * args.losses() + anchor]; }
  // a_ki
  double active_weight(int64_t k, int64_t anchor) const {
    const Features& features = args.features;
    const double pairs = anchor < features.n ? features.anchor_pairs() : features.key_pairs(anchor - features.n);
    return family.active_weight(args.weights[k], total(k, anchor), pairs);
  }

  // a_ki / n_ki, times g_i where given
  template <class V>
  V* positive_weights(const T* g) {
    V* positive = this->template per_item<V>(args.sets());
    for_each_anchor([&](int64_t a, int64_t item) {
      for (int64_t k = 0; k < args.sets(); ++k) {
        const double active = active_weight(k, a);
        const double value = active > 0 ? active / total(k, a) * (g ? g[a] : 1) : 0;
        positive[k * this->batch.items + item] = static_cast<V>(value);
      }
    });
    return positive;
  }

  // visit(anchor, padded item), in parallel
  template <class Visit>
  void for_each_anchor(const Visit& visit) const {
    constexpr int64_t kAnchors = 512;  // for which another thread pays
    parallel_for(args.losses(), kAnchors, [&](int64_t begin, int64_t end) {
      for (int64_t a = begin; a < end; ++a) visit(a, this->padded(a));
    });
  }

 private:
  void add_sum(Weight weight, int64_t k) {
    sums.push_back({weight, k, this->per_item(1, static_cast<T>(this->bound)), nullptr, nullptr});
  }
};

// Gives every sum its shifts: the bound of all dot products where that is safe, else the largest of each item.
template <class T>
void find_shifts(Pass<T>& pass, SavedLogits<T> saved_logits) {
  if (pass.batch.constant_shift) return;
  constexpr T kLowest = std::numeric_limits<T>::lowest();
  for (const ExponentialSum<T>& sum : pass.sums) std::fill(sum.max, sum.max + pass.batch.items, kLowest);
  pass.for_each_block_pair([&](int64_t i, int64_t j, int64_t p) {
    pass.kernel.maximum(pass.batch, static_cast<int64_t>(pass.sums.size()), pass.sums.data(), i, j, saved_logits.of(p));
  });
  for (const ExponentialSum<T>& sum : pass.sums) std::replace(sum.max, sum.max + pass.batch.items, kLowest, T(0));
}

template <class T>
void forward(const Arguments& args, const Kernels<T>& kernels, T* loss, T* saved_lse, double* positive_counts,
             SavedLogits<T> saved_logits) {
  Pass<T> pass(args, kernels, positive_counts, true);
  pass.count_positives(args.attributes, args.losses(), positive_counts);
  const Batch<T>& batch = pass.batch;
  const int64_t items = batch.items, sets = args.sets(), anchors = args.losses();
  const auto count = static_cast<int64_t>(pass.sums.size());
  std::vector<double> sums(count * items, 0.), linear(items, 0.), sigmoid(args.sincere ? sets * items : 0, 0.);
  const double* positive = pass.template positive_weights<double>(nullptr);
  if (!pass.all_nonfinite()) {
    find_shifts(pass, saved_logits);
    for (int64_t s = 0; s < count; ++s) pass.sums[s].sum = sums.data() + s * items;
    const ForwardTerms<T> terms{count, pass.sums.data(), pass.family.has_linear() ? positive : nullptr, linear.data()};
    pass.for_each_block_pair(
        [&](int64_t i, int64_t j, int64_t p) { pass.kernel.forward(batch, terms, i, j, saved_logits.of(p)); });
    if (args.sincere) {
      T* log_sum = pass.per_item(sets);
      for (int64_t s = 0; s < sets * items; ++s) log_sum[s] = static_cast<T>(std::log2(sums[s]));
      const SoftplusTerms<T> softplus{pass.sums.data(), log_sum, positive, linear.data(), sigmoid.data()};
      pass.for_each_block_pair(
          [&](int64_t i, int64_t j, int64_t p) { pass.kernel.softplus(batch, softplus, i, j, saved_logits.of(p)); });
    }
  }

  T* losses = args.reduced ? pass.per_item(1) : loss;
  pass.for_each_anchor([&](int64_t a, int64_t item) {
    const auto log_of = [&](int64_t s) { return pass.sums[s].max[item] / args.tau + std::log(sums[s * items + item]); };
    // Sets that are not active are left out, also because their sums may be empty: log 0.
    double value = args.sincere ? linear[item] * kLn2 : -linear[item] / args.tau;
    bool active = false;
    for (int64_t k = 0; k < sets; ++k) {
      const double weight = pass.active_weight(k, a);
      if (!(weight > 0)) continue;
      active = true;
      if (!args.sincere) value += weight * log_of(pass.family.denominator(k));
      if (args.inside) value -= weight * (log_of(pass.family.numerator(k)) - std::log(pass.total(k, a)));
    }
    losses[a] = static_cast<T>(!active ? 0 : pass.nonfinite(item) ? kNan : value);
    for (int64_t s = 0; s < count; ++s) {
      saved_lse[pass.family.shift_row(s) * anchors + a] = pass.sums[s].max[item];
      saved_lse[pass.family.sum_row(s) * anchors + a] = static_cast<T>(sums[s * items + item]);
    }
    for (int64_t k = 0; args.sincere && k < sets; ++k) {
      const double total = pass.total(k, a);
      saved_lse[pass.family.sigmoid_row(k) * anchors + a] =
          static_cast<T>(total > 0 ? sigmoid[k * items + item] / total : 0);
    }
  });
  if (args.reduced) *loss = static_cast<T>(std::accumulate(losses, losses + anchors, 0.) / (args.mean ? anchors : 1));
}

// Fills the shifts and coefficients of the exponential sums from the saved_lse of the forward. Items that are no
// anchors save_logits the coefficient 0.
template <class T>
void set_coefficients(Pass<T>& pass, const T* g, const T* saved_lse) {
  const Arguments& args = pass.args;
  const int64_t anchors = args.losses();
  const auto count = static_cast<int64_t>(pass.sums.size());
  for (int64_t s = 0; s < count; ++s) {
    ExponentialSum<T>& sum = pass.sums[s];
    T* coefficient = pass.per_item(1);
    sum.coefficient = coefficient;
    pass.for_each_anchor([&](int64_t a, int64_t item) {
      sum.max[item] = saved_lse[pass.family.shift_row(s) * anchors + a];
      double active = 0;
      if (sum.weight == Weight::kEvery) {
        for (int64_t k = 0; k < args.sets(); ++k) active += pass.active_weight(k, a);
      } else {
        active = pass.active_weight(sum.set, a) * (sum.weight == Weight::kRelated ? -1 : 1);
      }
      if (args.sincere) active *= saved_lse[pass.family.sigmoid_row(s) * anchors + a];
      const double value = saved_lse[pass.family.sum_row(s) * anchors + a];
      if (active != 0 && value > 0) coefficient[item] = static_cast<T>(g[a] * active / value);
    });
  }
}

template <class T>
std::tuple<Tensor, Tensor> backward(const Arguments& args, const Kernels<T>& kernels, const T* g, const T* saved_lse,
                                    const double* positive_counts, SavedLogits<const T> saved_logits, bool need_anchors,
                                    bool need_keys) {
  Pass<T> pass(args, kernels, positive_counts, saved_logits.pairs < count_block_pairs(args.features));
  const Batch<T>& batch = pass.batch;
  const int64_t column_block = batch.column_begin / kBlock;
  need_keys &= !args.features.self();
  Tensor grad_anchors = pass.start_gradient(need_anchors, args.features.anchors, 0);
  Tensor grad_keys = pass.start_gradient(need_keys, args.features.keys.value_or(args.features.anchors), column_block);
  if (!pass.all_nonfinite()) {
    std::vector<T> of_logits(args.losses());  // dL/d(x_i.y_j) = G_ij / tau
    const double scale = 1 / args.tau / (args.mean ? static_cast<double>(args.losses()) : 1);
    for (int64_t a = 0; a < args.losses(); ++a) of_logits[a] = static_cast<T>(g[args.reduced ? 0 : a] * scale);
    g = of_logits.data();
    set_coefficients(pass, g, saved_lse);
    T* log_sum = args.sincere ? pass.per_item(args.sets()) : nullptr;
    if (args.sincere) {
      pass.for_each_anchor([&](int64_t a, int64_t item) {
        for (int64_t k = 0; k < args.sets(); ++k) {
          log_sum[k * batch.items + item] = std::log2(saved_lse[pass.family.sum_row(k) * args.losses() + a]);
        }
      });
    }
    const BackwardTerms<T> terms{static_cast<int64_t>(pass.sums.size()),
                                 pass.sums.data(),
                                 args.inside ? nullptr : pass.template positive_weights<T>(g),
                                 log_sum,
                                 pass.gradient_blocks(),
                                 need_anchors,
                                 args.features.self() ? need_anchors : need_keys};
    pass.for_each_block_pair(
        [&](int64_t i, int64_t j, int64_t p) { pass.kernel.backward(batch, terms, i, j, saved_logits.of(p)); });
  }
  const auto as_it_is = [](int64_t, T*) {};
  pass.finish_gradient(grad_anchors, 0, as_it_is);
  pass.finish_gradient(grad_keys, column_block, as_it_is);
  return {grad_anchors, grad_keys};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> contrastive_fwd_cpu(
    const Tensor& anchors, const std::optional<Tensor>& keys, const Tensor& temperature, const Tensor& intervals,
    const std::optional<Tensor>& relation_data, std::vector<int64_t> words, const std::optional<Tensor>& mask,
    std::vector<double> weights, std::optional<int64_t> anchor_offset, std::string positives, std::string denominator,
    bool symmetric, std::string reduction, bool /*allow_tf32*/, bool save_logits) {
  const Arguments args({anchors, keys, temperature, intervals, relation_data, std::move(words), mask,
                        std::move(weights), anchor_offset, positives, denominator, symmetric, reduction});
  const ScalarType dtype = args.dtype();
  const int64_t fitting = kMaxSavedBytes / (kBlockPairs * (dtype == ScalarType::Double ? 8 : 4));
  const int64_t saved = save_logits ? std::min(count_block_pairs(args.features), fitting) : 0;
  Tensor loss = args.reduced ? empty_cpu({}, dtype) : empty_cpu({args.losses()}, dtype);
  Tensor saved_lse = empty_cpu({args.family().saved_rows(), args.losses()}, dtype);
  Tensor positive_counts = empty_cpu({args.sets(), args.losses()}, ScalarType::Double);
  Tensor saved_logits = SavedLogitsMemory::tensor(saved, dtype);
  dispatch(anchors.scalar_type(), [&]<class T>(const Kernels<T>& kernels) {
    forward<T>(args, kernels, loss.mutable_data_ptr<T>(), saved_lse.mutable_data_ptr<T>(),
               positive_counts.mutable_data_ptr<double>(), SavedLogits<T>{saved_logits.mutable_data_ptr<T>(), saved});
  });
  return {loss, saved_lse, positive_counts, saved_logits};
}

std::tuple<Tensor, Tensor> contrastive_bwd_cpu(const Tensor& grad_loss, const Tensor& saved_lse,
                                               const Tensor& positive_counts, const Tensor& saved_logits_,
                                               bool need_anchors, bool need_keys, const Tensor& anchors,
                                               const std::optional<Tensor>& keys, const Tensor& temperature,
                                               const Tensor& intervals, const std::optional<Tensor>& relation_data,
                                               std::vector<int64_t> words, const std::optional<Tensor>& mask,
                                               std::vector<double> weights, std::optional<int64_t> anchor_offset,
                                               std::string positives, std::string denominator, bool symmetric,
                                               std::string reduction, bool /*allow_tf32*/) {
  const Arguments args({anchors, keys, temperature, intervals, relation_data, std::move(words), mask,
                        std::move(weights), anchor_offset, positives, denominator, symmetric, reduction});
  const Saved saved(args, grad_loss, saved_lse, positive_counts);
  const Tensor saved_logits = as_contiguous(saved_logits_);
  STD_TORCH_CHECK(
      saved_logits.dim() == 2 && saved_logits.size(1) == kBlockPairs && saved_logits.scalar_type() == args.dtype(),
      "saved_logits must be those of the forward");
  std::tuple<Tensor, Tensor> result;
  dispatch(anchors.scalar_type(), [&]<class T>(const Kernels<T>& kernels) {
    result = backward<T>(args, kernels, saved.grad_loss.const_data_ptr<T>(), saved.saved_lse.const_data_ptr<T>(),
                         saved.positive_counts.const_data_ptr<double>(),
                         {saved_logits.const_data_ptr<T>(), saved_logits.size(0)}, need_anchors, need_keys);
  });
  return result;
}

}  // namespace
}  // namespace mmcuda

STABLE_TORCH_LIBRARY_IMPL(mmcuda, CPU, m) {
  m.impl("contrastive_fwd", TORCH_BOX(&mmcuda::contrastive_fwd_cpu));
  m.impl("contrastive_bwd", TORCH_BOX(&mmcuda::contrastive_bwd_cpu));
}
