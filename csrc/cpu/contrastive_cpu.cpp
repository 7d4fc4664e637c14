// Host side of the contrastive losses on the CPU: which sums a variant needs, the passes over the block pairs, and the
// losses and gradients of the anchors from the sums. The maths is in contrastive.h.

#include <torch/csrc/stable/library.h>

#include <numeric>
#include <string>
#include <tuple>

#include "kept.h"
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

// The dot products of the first block pairs, kept from pass to pass and for the backward.
template <class T>
struct Kept {
  T* data;  // [pairs, kBlock, kBlock]
  int64_t pairs;

  T* of(int64_t p) const { return p < pairs ? data + p * kBlockPairs : nullptr; }
};

// What forward and backward share: the features and labels, the exponential sums, and the place of each anchor in the
// statistics [S, A]: shift and sum of each exponential sum, then the mean sigmoids.
template <class T>
struct Pass : Workspace<T> {
  const Arguments& args;
  const double* totals;  // [K, A] n_ki
  std::vector<ExponentialSum<T>> sums;
  int64_t denominators;  // how many sums are denominators; one per set or one for all

  Pass(const Arguments& arguments, const Kernels<T>& kernels, const double* totals_, bool dot_products)
      : Workspace<T>(arguments.features, kernels),
        args(arguments),
        totals(totals_),
        denominators(args.all ? 1 : args.sets()) {
    this->batch.both_ways = args.both_ways;
    this->pack_features(dot_products);
    this->set_temperature(args.tau);
    this->expand_labels(args.attributes);
    for (int64_t k = 0; k < denominators; ++k) add_sum(args.all ? Weight::kEvery : Weight::kUnrelated, k);
    for (int64_t k = 0; args.inside && k < args.sets(); ++k) add_sum(Weight::kRelated, k);
  }

  double total(int64_t k, int64_t anchor) const { return totals[k * args.anchors() + anchor]; }
  // a_ki
  double active_weight(int64_t k, int64_t anchor) const {
    const double positives = total(k, anchor);
    if (!(positives > 0)) return 0;
    if (args.all || args.one_positive) return args.weights[k];
    const Features& features = args.features;
    const double pairs = anchor < features.n ? features.row_pairs() : features.column_pairs(anchor - features.n);
    return pairs - positives > 1e-6 ? args.weights[k] : 0;
  }

  int64_t denominator(int64_t k) const { return args.all ? 0 : k; }
  int64_t numerator(int64_t k) const { return denominators + k; }
  bool has_linear() const { return !args.inside && !args.one_positive; }

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
    parallel_for(args.anchors(), kAnchors, [&](int64_t begin, int64_t end) {
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
void find_shifts(Pass<T>& pass, Kept<T> dots) {
  if (pass.batch.constant_shift) return;
  constexpr T kLowest = std::numeric_limits<T>::lowest();
  for (const ExponentialSum<T>& sum : pass.sums) std::fill(sum.max, sum.max + pass.batch.items, kLowest);
  pass.for_each_block_pair([&](int64_t i, int64_t j, int64_t p) {
    pass.kernel.maximum(pass.batch, static_cast<int64_t>(pass.sums.size()), pass.sums.data(), i, j, dots.of(p));
  });
  for (const ExponentialSum<T>& sum : pass.sums) std::replace(sum.max, sum.max + pass.batch.items, kLowest, T(0));
}

template <class T>
void forward(const Arguments& args, const Kernels<T>& kernels, T* loss, T* statistics, double* totals, Kept<T> dots) {
  Pass<T> pass(args, kernels, totals, true);
  pass.count_positives(args.attributes, args.anchors(), totals);
  const Batch<T>& batch = pass.batch;
  const int64_t items = batch.items, sets = args.sets(), anchors = args.anchors();
  const auto count = static_cast<int64_t>(pass.sums.size());
  std::vector<double> sums(count * items, 0.), linear(items, 0.), sigmoid(args.one_positive ? sets * items : 0, 0.);
  const double* positive = pass.template positive_weights<double>(nullptr);
  if (!pass.all_poisoned()) {
    find_shifts(pass, dots);
    for (int64_t s = 0; s < count; ++s) pass.sums[s].sum = sums.data() + s * items;
    const ForwardTerms<T> terms{count, pass.sums.data(), pass.has_linear() ? positive : nullptr, linear.data()};
    pass.for_each_block_pair(
        [&](int64_t i, int64_t j, int64_t p) { pass.kernel.forward(batch, terms, i, j, dots.of(p)); });
    if (args.one_positive) {
      T* log_sum = pass.per_item(sets);
      for (int64_t s = 0; s < sets * items; ++s) log_sum[s] = static_cast<T>(std::log2(sums[s]));
      const SoftplusTerms<T> softplus{pass.sums.data(), log_sum, positive, linear.data(), sigmoid.data()};
      pass.for_each_block_pair(
          [&](int64_t i, int64_t j, int64_t p) { pass.kernel.softplus(batch, softplus, i, j, dots.of(p)); });
    }
  }

  T* losses = args.reduced ? pass.per_item(1) : loss;
  pass.for_each_anchor([&](int64_t a, int64_t item) {
    const auto log_of = [&](int64_t s) { return pass.sums[s].max[item] / args.tau + std::log(sums[s * items + item]); };
    // Sets that are not active are left out, also because their sums may be empty: log 0.
    double value = args.one_positive ? linear[item] * kLn2 : -linear[item] / args.tau;
    bool active = false;
    for (int64_t k = 0; k < sets; ++k) {
      const double weight = pass.active_weight(k, a);
      if (!(weight > 0)) continue;
      active = true;
      if (!args.one_positive) value += weight * log_of(pass.denominator(k));
      if (args.inside) value -= weight * (log_of(pass.numerator(k)) - std::log(pass.total(k, a)));
    }
    losses[a] = static_cast<T>(!active ? 0 : pass.poisoned(item) ? kNan : value);
    for (int64_t s = 0; s < count; ++s) {
      statistics[2 * s * anchors + a] = pass.sums[s].max[item];
      statistics[(2 * s + 1) * anchors + a] = static_cast<T>(sums[s * items + item]);
    }
    for (int64_t k = 0; args.one_positive && k < sets; ++k) {
      const double total = pass.total(k, a);
      statistics[(2 * count + k) * anchors + a] = static_cast<T>(total > 0 ? sigmoid[k * items + item] / total : 0);
    }
  });
  if (args.reduced) *loss = static_cast<T>(std::accumulate(losses, losses + anchors, 0.) / (args.mean ? anchors : 1));
}

// Fills the shifts and coefficients of the exponential sums from the statistics of the forward. Items that are no
// anchors keep the coefficient 0.
template <class T>
void set_coefficients(Pass<T>& pass, const T* g, const T* statistics) {
  const Arguments& args = pass.args;
  const int64_t anchors = args.anchors();
  const auto count = static_cast<int64_t>(pass.sums.size());
  for (int64_t s = 0; s < count; ++s) {
    ExponentialSum<T>& sum = pass.sums[s];
    T* coefficient = pass.per_item(1);
    sum.coefficient = coefficient;
    pass.for_each_anchor([&](int64_t a, int64_t item) {
      sum.max[item] = statistics[2 * s * anchors + a];
      double active = 0;
      if (sum.weight == Weight::kEvery) {
        for (int64_t k = 0; k < args.sets(); ++k) active += pass.active_weight(k, a);
      } else {
        active = pass.active_weight(sum.set, a) * (sum.weight == Weight::kRelated ? -1 : 1);
      }
      if (args.one_positive) active *= statistics[(2 * count + s) * anchors + a];
      const double value = statistics[(2 * s + 1) * anchors + a];
      if (active != 0 && value > 0) coefficient[item] = static_cast<T>(g[a] * active / value);
    });
  }
}

template <class T>
std::tuple<Tensor, Tensor> backward(const Arguments& args, const Kernels<T>& kernels, const T* g, const T* statistics,
                                    const double* totals, Kept<const T> dots, bool need_rows, bool need_columns) {
  Pass<T> pass(args, kernels, totals, dots.pairs < count_block_pairs(args.features));
  const Batch<T>& batch = pass.batch;
  const int64_t column_block = batch.column_begin / kBlock;
  need_columns &= !args.features.self();
  Tensor grad_rows = pass.start_gradient(need_rows, args.features.rows, 0);
  Tensor grad_columns =
      pass.start_gradient(need_columns, args.features.columns.value_or(args.features.rows), column_block);
  if (!pass.all_poisoned()) {
    std::vector<T> of_logits(args.anchors());  // dL/d(x_i.y_j) = G_ij / tau
    const double scale = 1 / args.tau / (args.mean ? static_cast<double>(args.anchors()) : 1);
    for (int64_t a = 0; a < args.anchors(); ++a) of_logits[a] = static_cast<T>(g[args.reduced ? 0 : a] * scale);
    g = of_logits.data();
    set_coefficients(pass, g, statistics);
    T* log_sum = args.one_positive ? pass.per_item(args.sets()) : nullptr;
    if (args.one_positive) {
      pass.for_each_anchor([&](int64_t a, int64_t item) {
        for (int64_t k = 0; k < args.sets(); ++k) {
          log_sum[k * batch.items + item] = std::log2(statistics[(2 * k + 1) * args.anchors() + a]);
        }
      });
    }
    const BackwardTerms<T> terms{static_cast<int64_t>(pass.sums.size()),
                                 pass.sums.data(),
                                 args.inside ? nullptr : pass.template positive_weights<T>(g),
                                 log_sum,
                                 pass.gradient_blocks(),
                                 need_rows,
                                 args.features.self() ? need_rows : need_columns};
    pass.for_each_block_pair(
        [&](int64_t i, int64_t j, int64_t p) { pass.kernel.backward(batch, terms, i, j, dots.of(p)); });
  }
  const auto as_it_is = [](int64_t, T*) {};
  pass.finish_gradient(grad_rows, 0, as_it_is);
  pass.finish_gradient(grad_columns, column_block, as_it_is);
  return {grad_rows, grad_columns};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> contrastive_fwd_cpu(
    const Tensor& rows, const std::optional<Tensor>& columns, const Tensor& temperature, const Tensor& ranks,
    const std::optional<Tensor>& relation_data, std::vector<int64_t> words, const std::optional<Tensor>& mask,
    std::vector<double> weights, std::optional<int64_t> self_offset, std::string positives, std::string denominator,
    bool both_ways, std::string reduction, bool /*allow_tf32*/, bool keep) {
  const Arguments args({rows, columns, temperature, ranks, relation_data, std::move(words), mask, std::move(weights),
                        self_offset, positives, denominator, both_ways, reduction});
  const ScalarType dtype = args.dtype();
  const int64_t fitting = kMostKept / (kBlockPairs * (dtype == ScalarType::Double ? 8 : 4));
  const int64_t kept = keep ? std::min(count_block_pairs(args.features), fitting) : 0;
  Tensor loss = args.reduced ? empty_cpu({}, dtype) : empty_cpu({args.anchors()}, dtype);
  Tensor statistics = empty_cpu({args.statistics(), args.anchors()}, dtype);
  Tensor totals = empty_cpu({args.sets(), args.anchors()}, ScalarType::Double);
  Tensor dots = KeptMemory::tensor(kept, dtype);
  dispatch(rows.scalar_type(), [&]<class T>(const Kernels<T>& kernels) {
    forward<T>(args, kernels, loss.mutable_data_ptr<T>(), statistics.mutable_data_ptr<T>(),
               totals.mutable_data_ptr<double>(), Kept<T>{dots.mutable_data_ptr<T>(), kept});
  });
  return {loss, statistics, totals, dots};
}

std::tuple<Tensor, Tensor> contrastive_bwd_cpu(
    const Tensor& grad_loss, const Tensor& statistics, const Tensor& totals, const Tensor& dots_, bool need_rows,
    bool need_columns, const Tensor& rows, const std::optional<Tensor>& columns, const Tensor& temperature,
    const Tensor& ranks, const std::optional<Tensor>& relation_data, std::vector<int64_t> words,
    const std::optional<Tensor>& mask, std::vector<double> weights, std::optional<int64_t> self_offset,
    std::string positives, std::string denominator, bool both_ways, std::string reduction, bool /*allow_tf32*/) {
  const Arguments args({rows, columns, temperature, ranks, relation_data, std::move(words), mask, std::move(weights),
                        self_offset, positives, denominator, both_ways, reduction});
  const Saved saved(args, grad_loss, statistics, totals);
  const Tensor dots = as_contiguous(dots_);
  STD_TORCH_CHECK(dots.dim() == 2 && dots.size(1) == kBlockPairs && dots.scalar_type() == args.dtype(),
                  "dots must be those of the forward");
  std::tuple<Tensor, Tensor> result;
  dispatch(rows.scalar_type(), [&]<class T>(const Kernels<T>& kernels) {
    result = backward<T>(args, kernels, saved.grad_loss.const_data_ptr<T>(), saved.statistics.const_data_ptr<T>(),
                         saved.totals.const_data_ptr<double>(), {dots.const_data_ptr<T>(), dots.size(0)}, need_rows,
                         need_columns);
  });
  return result;
}

}  // namespace
}  // namespace mmcuda

STABLE_TORCH_LIBRARY_IMPL(mmcuda, CPU, m) {
  m.impl("contrastive_fwd", TORCH_BOX(&mmcuda::contrastive_fwd_cpu));
  m.impl("contrastive_bwd", TORCH_BOX(&mmcuda::contrastive_bwd_cpu));
}
