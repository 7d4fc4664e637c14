// Host side of the CPU loss: checks, workspace, schedule, operators.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <optional>
#include <thread>
#include <tuple>
#include <vector>

#include "instruction_set.h"

namespace mmcuda {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr double kLog2E = 1.4426950408889634;

template <class T>
const Kernels<T>& kernels() {
  if constexpr (std::is_same_v<T, float>) {
    return instruction_set().fp32;
  } else {
    return instruction_set().fp64;
  }
}

template <class T>
constexpr ScalarType kScalar = std::is_same_v<T, float> ? ScalarType::Float : ScalarType::Double;
template <class T>
constexpr ScalarType kIndexScalar = std::is_same_v<T, float> ? ScalarType::Int : ScalarType::Long;

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Calls pair(I, J) once for every I <= J < blocks, in parallel. The order is that of a round-robin tournament: round 0
// is the diagonal, and in each later round every block meets one other. Threads take the pairs in this order and start
// one when both blocks have finished their earlier rounds, so no two threads ever update the same block, no thread
// waits for a whole round, and each block sees its partners in the same order whatever the number of threads: results
// are bit-identical.
template <class Pair>
void tournament(int64_t blocks, const Pair& pair) {
  const int64_t players = blocks + blocks % 2;  // an odd number gets a bye: the last seat stays empty
  const int64_t seats = players / 2, pairs = players + (players - 1) * seats;
  std::atomic<int64_t> next{0};
  std::vector<std::atomic<int64_t>> finished(players);  // rounds of each block

  const auto meet = [&](int64_t round, int64_t a, int64_t b) {
    for (const int64_t block : {a, b}) {
      while (finished[block].load(std::memory_order_acquire) != round) std::this_thread::yield();
    }
    if (b < blocks) pair(a, b);
    for (const int64_t block : {a, b}) finished[block].store(round + 1, std::memory_order_release);
  };
  torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t p = next++; p < pairs; p = next++) {
      if (p < players) {
        meet(0, p, p);
        continue;
      }
      const int64_t turn = (p - players) / seats, seat = (p - players) % seats, circle = players - 1;
      const int64_t a = (turn + seat) % circle;
      const int64_t b = seat == 0 ? circle : (turn - seat + circle) % circle;  // one stays seated, the others rotate
      meet(turn + 1, std::min(a, b), std::max(a, b));
    }
  });
}

struct Arguments {
  Tensor features;              // [N, D] contiguous
  Tensor ranks;                 // [K, 3, B] contiguous
  std::vector<double> weights;  // [K]
  std::optional<Tensor> mask;   // [B, B] contiguous
  double temperature;
  int64_t n, d, samples, views, sets;

  Arguments(const Tensor& features_, const Tensor& ranks_, std::vector<double> weights_,
            const std::optional<Tensor>& mask_, double temperature_)
      : features(torch::stable::contiguous(features_)),
        ranks(torch::stable::contiguous(ranks_)),
        weights(std::move(weights_)),
        temperature(temperature_) {
    STD_TORCH_CHECK(features.dim() == 2, "features must be [N, D], got ", features.dim(), " dimensions");
    STD_TORCH_CHECK(ranks.dim() == 3 && ranks.size(1) == 3 && ranks.scalar_type() == ScalarType::Int,
                    "ranks must be [K, 3, B] int32");
    n = features.size(0), d = features.size(1), samples = ranks.size(2), sets = ranks.size(0);
    STD_TORCH_CHECK(samples > 0 && n % samples == 0, "features must have a multiple of ", samples, " rows, got ", n);
    STD_TORCH_CHECK(n <= std::numeric_limits<int32_t>::max() - kBlock, "features must have fewer than 2^31 rows, got ",
                    n);
    STD_TORCH_CHECK(static_cast<int64_t>(weights.size()) == sets, "weights must have one value per label set");
    STD_TORCH_CHECK(temperature > 0, "temperature must be positive, got ", temperature);
    views = n / samples;
    if (mask_) {
      mask = torch::stable::contiguous(*mask_);
      STD_TORCH_CHECK(mask->dim() == 2 && mask->size(0) == samples && mask->size(1) == samples &&
                          mask->scalar_type() == features.scalar_type(),
                      "mask must be [", samples, ", ", samples, "] in the dtype of features");
    }
  }
};

// The padded copy of the features, the label sets per row, and what follows from them for each row.
template <class T>
class Workspace {
 public:
  using Index = typename IndexOf<T>::type;

  const Kernels<T>& kernel = kernels<T>();  // one instruction set from packing to the last block pair
  Batch<T> batch{};
  std::vector<double> omega;  // [N] Omega_i
  bool finite = true;         // no NaN or infinity among the features, and no overflow of their squares

  // g scales the weights of a row's positives: the incoming gradient in the backward, null (ones) in the forward.
  Workspace(const Arguments& args, const T* g) : omega(args.n, 0.) {
    batch.n = args.n;
    batch.d = args.d;
    batch.np = round_up(args.n, kBlock);
    batch.dp = round_up(std::max<int64_t>(args.d, 1), kernel.pad);
    batch.scale = static_cast<T>(kLog2E / args.temperature);
    pack_features(args);
    expand_labels(args, g);
    if (args.mask) expand_mask(args, g);
  }

  T* values(int64_t count, T fill) {
    T* data = allocate<T>(count, kScalar<T>);
    std::fill(data, data + count, fill);
    return data;
  }

 private:
  std::vector<Tensor> storage_;

  template <class V>
  V* allocate(int64_t count, ScalarType dtype) {
    storage_.push_back(torch::stable::empty({count}, dtype));
    return storage_.back().template mutable_data_ptr<V>();
  }

  void pack_features(const Arguments& args) {
    const T* features = args.features.const_data_ptr<T>();
    T* rows = allocate<T>(batch.np * batch.dp, kScalar<T>);
    T* panels = allocate<T>(batch.np * batch.d, kScalar<T>);
    std::vector<double> square(batch.np / kBlock, 0.);  // per block, the largest squared norm
    torch::stable::parallel_for(0, batch.np / kBlock, 1, [&](int64_t begin, int64_t end) {
      kernel.pack(batch, features, begin * kBlock, end * kBlock, rows, panels);
      for (int64_t b = begin; b < end; ++b) {
        for (int64_t i = b * kBlock; i < std::min(batch.n, (b + 1) * kBlock); ++i) {
          T sum = 0;
          for (int64_t k = 0; k < batch.d; ++k) sum += features[i * batch.d + k] * features[i * batch.d + k];
          if (!(sum <= square[b])) square[b] = sum;  // NaN, too, is kept
        }
      }
    });
    double largest = 0;
    for (const double value : square) {
      if (!(value <= largest)) largest = value;
    }
    finite = largest <= std::numeric_limits<T>::max();  // false for NaN
    // By Cauchy and Schwarz no dot product exceeds the largest squared norm.
    batch.constant_shift = 2 * largest * batch.scale < kMaxExponentRange;
    batch.shift = batch.constant_shift ? static_cast<T>(largest) : std::numeric_limits<T>::lowest();
    batch.rows = rows;
    batch.panels = panels;
  }

  void expand_labels(const Arguments& args, const T* g) {
    batch.sets = args.sets;
    Index* of_kind[3];  // rank, first, last
    for (auto& values : of_kind) values = allocate<Index>(args.sets * batch.np, kIndexScalar<T>);
    T* positive = values(args.sets * batch.np, 0);
    const auto* ranks = args.ranks.const_data_ptr<int32_t>();
    for (int64_t k = 0; k < args.sets; ++k) {
      const int32_t* first = ranks + (3 * k + 1) * args.samples;
      const int32_t* last = ranks + (3 * k + 2) * args.samples;
      for (int kind = 0; kind < 3; ++kind) {
        Index* out = of_kind[kind] + k * batch.np;
        const int32_t* in = ranks + (3 * k + kind) * args.samples;
        for (int64_t i = 0; i < batch.np; ++i) out[i] = i < batch.n ? in[i / args.views] : 0;
      }
      for (int64_t i = 0; i < batch.n; ++i) {
        const int64_t b = i / args.views;
        const int64_t positives = (int64_t{last[b]} - first[b] + 1) * args.views - 1;
        if (positives == 0) continue;
        omega[i] += args.weights[k];
        positive[k * batch.np + i] = static_cast<T>(args.weights[k] / positives * (g ? g[i] : 1));
      }
    }
    batch.rank = of_kind[0], batch.first = of_kind[1], batch.last = of_kind[2];
    batch.positive = positive;
  }

  void expand_mask(const Arguments& args, const T* g) {
    const T* mask = args.mask->const_data_ptr<T>();
    auto* sample = allocate<Index>(batch.np, kIndexScalar<T>);
    T* masked = values(batch.np, 0);
    for (int64_t i = 0; i < batch.np; ++i) sample[i] = i < batch.n ? static_cast<Index>(i / args.views) : 0;
    for (int64_t b = 0; b < args.samples; ++b) {
      double total = 0;
      for (int64_t a = 0; a < args.samples; ++a) total += mask[b * args.samples + a];
      total = total * args.views - mask[b * args.samples + b];
      if (!(total > 0)) continue;
      for (int64_t i = b * args.views; i < (b + 1) * args.views; ++i) {
        omega[i] += 1;
        masked[i] = static_cast<T>((g ? g[i] : 1) / total);
      }
    }
    batch.mask = mask;
    batch.samples = args.samples;
    batch.sample = sample;
    batch.masked = masked;
  }
};

template <class T>
void forward(const Arguments& args, T* losses, T* statistics) {
  Workspace<T> work(args, nullptr);
  const Batch<T>& batch = work.batch;
  if (!work.finite) {
    std::fill(losses, losses + batch.n, std::numeric_limits<T>::quiet_NaN());
    std::fill(statistics, statistics + 2 * batch.n, std::numeric_limits<T>::quiet_NaN());
    return;
  }
  std::vector<double> sum(batch.np, 0.), positive(batch.np, 0.);
  const RowStatistics<T> rows{work.values(batch.np, batch.shift), sum.data(), positive.data()};
  tournament(batch.np / kBlock, [&](int64_t i, int64_t j) { work.kernel.forward(batch, i, j, rows); });

  for (int64_t i = 0; i < batch.n; ++i) {
    statistics[i] = rows.max[i];
    statistics[batch.n + i] = static_cast<T>(sum[i]);
    // Without positives the loss is 0, also where lse is not finite (a single row has no pairs: lse = -inf).
    const double lse = rows.max[i] / args.temperature + std::log(sum[i]);
    losses[i] = work.omega[i] > 0 ? static_cast<T>(work.omega[i] * lse - positive[i] / args.temperature) : T(0);
  }
}

template <class T>
void backward(const Arguments& args, const T* grad_losses, const T* statistics, T* grad_features) {
  Workspace<T> work(args, grad_losses);
  const Batch<T>& batch = work.batch;
  if (!work.finite) {
    std::fill(grad_features, grad_features + batch.n * batch.d, std::numeric_limits<T>::quiet_NaN());
    return;
  }
  T* softmax = work.values(batch.np, 0);
  T* max = work.values(batch.np, std::numeric_limits<T>::max());  // padding: its exponents must not overflow
  std::copy(statistics, statistics + batch.n, max);
  for (int64_t i = 0; i < batch.n; ++i) {
    // Without positives there is no gradient, also where the sum is 0 (a single row).
    if (work.omega[i] > 0) softmax[i] = static_cast<T>(grad_losses[i] * work.omega[i] / statistics[batch.n + i]);
  }
  T* gradient = work.values(batch.np * batch.dp, 0);
  const RowGradients<T> rows{softmax, max};
  tournament(batch.np / kBlock, [&](int64_t i, int64_t j) { work.kernel.backward(batch, i, j, rows, gradient); });

  const T scale = static_cast<T>(1 / args.temperature);
  torch::stable::parallel_for(0, batch.n, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t k = 0; k < batch.d; ++k) grad_features[i * batch.d + k] = scale * gradient[i * batch.dp + k];
    }
  });
}

// Calls run<T>() for the dtype of features.
template <class Run>
void dispatch(const Tensor& features, const Run& run) {
  if (features.scalar_type() == ScalarType::Float) {
    run.template operator()<float>();
  } else {
    STD_TORCH_CHECK(features.scalar_type() == ScalarType::Double, "features must be float32 or float64");
    run.template operator()<double>();
  }
}

std::tuple<Tensor, Tensor> supcon_fwd_cpu(const Tensor& features, const Tensor& ranks, std::vector<double> weights,
                                          const std::optional<Tensor>& mask, double temperature) {
  const Arguments args(features, ranks, std::move(weights), mask, temperature);
  Tensor losses = torch::stable::new_empty(features, {args.n});
  Tensor statistics = torch::stable::new_empty(features, {2, args.n});
  dispatch(features,
           [&]<class T>() { forward<T>(args, losses.mutable_data_ptr<T>(), statistics.mutable_data_ptr<T>()); });
  return {losses, statistics};
}

Tensor supcon_bwd_cpu(const Tensor& grad_losses, const Tensor& features, const Tensor& statistics, const Tensor& ranks,
                      std::vector<double> weights, const std::optional<Tensor>& mask, double temperature) {
  const Arguments args(features, ranks, std::move(weights), mask, temperature);
  const Tensor grads = torch::stable::contiguous(grad_losses), stats = torch::stable::contiguous(statistics);
  STD_TORCH_CHECK(grads.numel() == args.n && grads.scalar_type() == features.scalar_type(), "grad_losses must be [",
                  args.n, "] in the dtype of features");
  STD_TORCH_CHECK(stats.dim() == 2 && stats.size(0) == 2 && stats.size(1) == args.n &&
                      stats.scalar_type() == features.scalar_type(),
                  "statistics must be [2, ", args.n, "] in the dtype of features");
  Tensor grad_features = torch::stable::new_empty(features, {args.n, args.d});
  dispatch(features, [&]<class T>() {
    backward<T>(args, grads.const_data_ptr<T>(), stats.const_data_ptr<T>(), grad_features.mutable_data_ptr<T>());
  });
  return grad_features;
}

}  // namespace
}  // namespace mmcuda

STABLE_TORCH_LIBRARY_IMPL(mmcuda, CPU, m) {
  m.impl("supcon_fwd", TORCH_BOX(&mmcuda::supcon_fwd_cpu));
  m.impl("supcon_bwd", TORCH_BOX(&mmcuda::supcon_bwd_cpu));
}
