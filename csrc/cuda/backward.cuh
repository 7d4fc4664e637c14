// Gradients: dX = H Y, where H_ij is what the pair (i, j) gives both to the loss of i and to that of j.
//
// H has both in it, so a block that owns rows I of X needs no other block's help: it goes over all tiles J of Y, makes
// the logits again, turns them into H in registers and multiplies with Y from shared memory. In self-contrast Y is X;
// in cross-contrast the kernel runs once for the rows and once, the sides swapped, for the columns. No atomics.
//
//   grid     x: tiles of own rows     y: slices of D, if D is large     z: stretches of J, if N is small ("splits")
//   block    4 warps, each 16 kM own rows: its logits acc[kM][kN], all columns of the tile, and its gradients
//   shared   own panels [kPanels][kTile rows], two stages of [kPanels][8 kN rows of Y] and labels of these rows
//
// Held, D is at most kPanels panels: own panels stay, a stage is one tile of Y that serves both products; the tile
// after next is never needed, so two stages do, and one barrier a tile says that the copies have come and that the
// other stage is free. Streamed, D is larger: panels of both sides pass through two slots for the logits, and the
// block's slice of Y is copied beside them for the second product.

#pragma once

#include "prepare.cuh"
#include "relations.cuh"
#include "tiles.cuh"

namespace mmcuda {

template <class T>
struct BackwardJob {
  const DeviceScalars* scalars;
  ShiftMode shift_mode;
  Side own, other;
  int64_t items;  // L
  int self;
  int swapped;   // own items are the columns of the operator
  int distance;  // own row i and other row i + distance are no pair
  int panels;    // of D
  int tiles;     // of `other`
  int sums;
  Term sum[2 * kMostSets];
  int sets;
  DeviceRelation<T> set[kMostSets];
  const T* shift;        // [sums, L]
  const T* coefficient;  // [sums, L]
  const T* positive;     // [K, L] of the linear or softplus term; null without one
  const T* log_sum;      // [K, L] null unless the term is a softplus
  MarginArguments<T> margin;

  // result: either the gradient, [own.count, d] in the dtype of features, or partial sums [splits, own.count, stride]
  void* gradient;
  T* partial;
  int64_t d, partial_stride;
  const T* squares;  // whose NaN make NaN
  int64_t rows;
  int symmetric;
};

template <class T>
struct alignas(2 * sizeof(T)) Two {
  T x, y;
};

// Neighbours at once, aligned to their size
__device__ __forceinline__ void store_run(float* to, const float (&v)[4]) {
  store_global(to, float4{v[0], v[1], v[2], v[3]});
}
template <class E>
__device__ __forceinline__ void store_run(E* to, const float (&v)[4]) {
  store_global(to, uint2{pack<E>(v[0], v[1]), pack<E>(v[2], v[3])});
}
__device__ __forceinline__ void store_run(double* to, const double (&v)[2]) { store_global(to, double2{v[0], v[1]}); }

// `kWide`: as many accumulators as an epilogue of few registers leaves room for.
template <class Math, int kPanels_, bool kWide>
struct BackwardTile {
  using T = typename Math::Accumulator;
  static constexpr int kPanels = kPanels_;
  static constexpr int kFeatures = kPanels * Math::kPanel;
  static constexpr int kWarps = 4, kThreads = 32 * kWarps;
  static constexpr int kM = kWide && sizeof(T) == 4 && Math::kProducts == 1 && kFeatures <= 128 ? 2 : 1;
  static constexpr int kN = !kWide || sizeof(T) == 8                         ? 2
                            : kFeatures <= 64                                ? 8
                            : kM == 2 && sizeof(typename Math::Element) == 4 ? 2
                                                                             : 4;
  static constexpr bool kOwnInRegisters = kWide && sizeof(typename Math::Element) == 2 && kFeatures > 128;
  static constexpr int kTile = kWarps * 16 * kM, kColumns = 8 * kN;
  static constexpr int kAccumulators = kFeatures / 8;
  static constexpr int kOwnPanel = kTile * kPanelBytes, kOtherPanel = kColumns * kPanelBytes;
  // Labels of a tile's columns: coefficients and weights of the positives, then orders.
  static constexpr int kStage = kPanels * kOtherPanel + kColumns * (2 * static_cast<int>(sizeof(T)) + 4);
  static constexpr int kShared = kPanels * kOwnPanel + 2 * kStage;
};

// ---- own rows in the first product, acc += X Y^T, where all panels are held

// They stay in shared memory.
template <class Math, class Tile>
struct OwnPanels {
  __device__ __forceinline__ void load(const unsigned char*, int, int) const {}
  template <class T, int kM, int kN>
  __device__ __forceinline__ void multiply(T (&acc)[kM][kN][4], const unsigned char* own, int row,
                                           const unsigned char* y, int panels) const {
#pragma unroll 1
    for (int panel = 0; panel < panels; ++panel) {
      multiply_panel<Math>(acc, own + panel * Tile::kOwnPanel, row, y + panel * Tile::kOtherPanel, 0);
    }
  }
};

// As fragments, read from shared memory once, not for every tile; all but the last panel of a full slice, for which
// there are no registers.
template <class Math, class Tile>
struct OwnFragments {
  static constexpr int kHeld = Tile::kPanels - 1;
  typename Math::A a[kHeld][Math::kSteps];

  __device__ __forceinline__ void load(const unsigned char* own, int row, int panels) {
#pragma unroll
    for (int panel = 0; panel < kHeld; ++panel) {
      if (panel >= panels) break;
#pragma unroll
      for (int step = 0; step < Math::kSteps; ++step) {
        Math::load_a(a[panel][step], own + panel * Tile::kOwnPanel, row, step);
      }
    }
  }
  template <class T, int kN>
  __device__ __forceinline__ void multiply(T (&acc)[1][kN][4], const unsigned char* own, int row,
                                           const unsigned char* y, int panels) const {
#pragma unroll
    for (int panel = 0; panel < kHeld; ++panel) {
      if (panel >= panels) break;
#pragma unroll
      for (int step = 0; step < Math::kSteps; ++step) {
        typename Math::B b[kN / 2][2];
#pragma unroll
        for (int n = 0; n < kN / 2; ++n) Math::load_b(b[n], y + panel * Tile::kOtherPanel, 16 * n, step);
#pragma unroll
        for (int n = 0; n < kN; ++n) Math::template mma<0>(acc[0][n], a[panel][step], b[n / 2][n % 2]);
      }
    }
    if (panels > kHeld) {
      multiply_panel<Math>(acc, own + kHeld * Tile::kOwnPanel, row, y + kHeld * Tile::kOtherPanel, 0);
    }
  }
};

// ---- epilogues: logits to H, in place

// As IntervalSums: one set of intervals, positives outside, the denominator all pairs, a constant shift.
// H_ij = (c_i + c_j) e_ij - r_ij (p_i + p_j) has one exponential for both.
template <class Math, int kM>
struct IntervalForces {
  using T = typename Math::Accumulator;
  static constexpr bool kLabels = true;  // of a tile's columns, in shared memory
  int begin[2 * kM], span[2 * kM];
  T coefficient[2 * kM], positive[2 * kM];  // of the lane's rows 8 r + g

  __device__ __forceinline__ IntervalForces(const BackwardJob<T>& job, const TilePairs<kM>& pairs) {
#pragma unroll
    for (int r = 0; r < 2 * kM; ++r) {
      const int i = pairs.item_of_row(r / 2, r % 2);
      begin[r] = load_global<int32_t>(job.set[0].first + i);
      span[r] = load_global<int32_t>(job.set[0].last + i) - begin[r];
      coefficient[r] = load_global<T>(job.coefficient + i);
      positive[r] = load_global<T>(job.positive + i);
    }
  }

  template <int kN, int kAccumulators>
  __device__ __forceinline__ void apply(const BackwardJob<T>& job, T (&acc)[kM][kN][4], const TilePairs<kM>& pairs,
                                        const unsigned char* labels, T (&)[kM][kAccumulators][4]) {
    const T scale = T(job.scalars->scale), shift = T(job.scalars->shift) * scale;
    const T* const c = reinterpret_cast<const T*>(labels) + 2 * (lane_id() & 3);
    const T* const p = c + 8 * kN;
    const int* const orders = reinterpret_cast<const int*>(labels + 16 * kN * sizeof(T)) + 2 * (lane_id() & 3);
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const Two<T> c_j = load_shared<Two<T>>(c + 8 * n), p_j = load_shared<Two<T>>(p + 8 * n);
      const int2 order = load_shared<int2>(orders + 8 * n);
      for_slice<kM>([&](int m, int v) {
        const int r = 2 * m + v / 2;
        const T e = exp2_of(multiply_add(acc[m][n][v], scale, -shift));
        const bool related = unsigned((v % 2 ? order.y : order.x) - begin[r]) <= unsigned(span[r]);
        const T pull = related ? positive[r] + (v % 2 ? p_j.y : p_j.x) : T(0);
        acc[m][n][v] = (coefficient[r] + (v % 2 ? c_j.y : c_j.x)) * e - pull;
      });
      if (!pairs.full) {
        for_slice<kM>([&](int m, int v) {
          if (!pairs.exists(m, n, v)) acc[m][n][v] = 0;
        });
      }
    }
  }

  template <int kAccumulators>
  __device__ __forceinline__ void finish(const BackwardJob<T>&, const TilePairs<kM>&, int,
                                         T (&)[kM][kAccumulators][4]) const {}
};

// Puts a slice behind the others and takes the next to the front, so that code for one serves all.
template <class T, int kM, int kN>
__device__ __forceinline__ void rotate(T (&acc)[kM][kN][4], const T (&last)[kM][4]) {
  for_slice<kM>([&](int m, int v) {
#pragma unroll
    for (int n = 0; n + 1 < kN; ++n) acc[m][n][v] = acc[m][n + 1][v];
    acc[m][kN - 1][v] = last[m][v];
  });
}

// Any sums and sets.
template <class Math, int kM>
struct AnyForces {
  using T = typename Math::Accumulator;
  static constexpr bool kLabels = false;

  __device__ __forceinline__ AnyForces(const BackwardJob<T>&, const TilePairs<kM>&) {}

  template <int kN, int kAccumulators>
  __device__ __forceinline__ void apply(const BackwardJob<T>& job, T (&acc)[kM][kN][4], const TilePairs<kM>& pairs,
                                        const unsigned char*, T (&)[kM][kAccumulators][4]) {
    const T scale = T(job.scalars->scale);
#pragma unroll 1
    for (int n = 0; n < kN; ++n) {
      const int j[2] = {pairs.item_of_column(n, 0), pairs.item_of_column(n, 1)};
      T h[kM][4] = {};
      for (int s = 0; s < job.sums; ++s) {
        const Term sum = job.sum[s];
        const T* const shift = job.shift + s * job.items;
        const T* const coefficient = job.coefficient + s * job.items;
        T weight[2][kM][4];
        weigh(job, sum, pairs, n, weight);
        for_slice<kM>([&](int m, int v) {
          const int i = pairs.item_of_row(m, v / 2);
          const T below_i = (acc[m][0][v] - load_global<T>(shift + i)) * scale;
          const T below_j = (acc[m][0][v] - load_global<T>(shift + j[v % 2])) * scale;
          h[m][v] += load_global<T>(coefficient + i) * weight[0][m][v] * exp2_of(below_i < 0 ? below_i : T(0));
          h[m][v] += load_global<T>(coefficient + j[v % 2]) * weight[1][m][v] * exp2_of(below_j < 0 ? below_j : T(0));
        });
      }
      for (int k = 0; job.positive && k < job.sets; ++k) {
        const Related<T, kM> related(job.set[k], job.items, pairs, n, job.self, job.swapped);
        const T* const positive = job.positive + k * job.items;
        for_slice<kM>([&](int m, int v) {
          const int i = pairs.item_of_row(m, v / 2);
          T pull_i = related.row[m][v] * load_global<T>(positive + i);
          T pull_j = related.column[m][v] * load_global<T>(positive + j[v % 2]);
          if (job.log_sum) {
            const T* const shift = job.shift + k * job.items;
            const T* const log_sum = job.log_sum + k * job.items;
            const T below_i = (acc[m][0][v] - load_global<T>(shift + i)) * scale;
            const T below_j = (acc[m][0][v] - load_global<T>(shift + j[v % 2])) * scale;
            pull_i *= sigmoid2(load_global<T>(log_sum + i) - below_i);
            pull_j *= sigmoid2(load_global<T>(log_sum + j[v % 2]) - below_j);
          }
          h[m][v] -= pull_i + pull_j;
        });
      }
      if (!pairs.full) {
        for_slice<kM>([&](int m, int v) {
          if (!pairs.exists(m, n, v)) h[m][v] = 0;
        });
      }
      rotate(acc, h);
    }
  }

  static __device__ __forceinline__ void weigh(const BackwardJob<T>& job, const Term& sum, const TilePairs<kM>& pairs,
                                               int n, T (&weight)[2][kM][4]) {
    for_slice<kM>([&](int m, int v) { weight[0][m][v] = weight[1][m][v] = 1; });
    if (sum.weight == Weight::kEvery) return;
    const Related<T, kM> related(job.set[sum.set], job.items, pairs, n, job.self, job.swapped);
    const bool unrelated = sum.weight == Weight::kUnrelated;
    for_slice<kM>([&](int m, int v) {
      weight[0][m][v] = unrelated ? 1 - related.row[m][v] : related.row[m][v];
      weight[1][m][v] = unrelated ? 1 - related.column[m][v] : related.column[m][v];
    });
  }

  template <int kAccumulators>
  __device__ __forceinline__ void finish(const BackwardJob<T>&, const TilePairs<kM>&, int,
                                         T (&)[kM][kAccumulators][4]) const {}
};

// ---- the kernel

template <class Math, int kPanels, template <class, int> class Forces>
using TileOf = BackwardTile<Math, kPanels, Forces<Math, 1>::kLabels>;

template <class Math, int kPanels, template <class, int> class Forces>
__global__ void __launch_bounds__(TileOf<Math, kPanels, Forces>::kThreads, 1)
    backward_kernel(const __grid_constant__ BackwardJob<typename Math::Accumulator> job) {
  using Tile = TileOf<Math, kPanels, Forces>;
  using T = typename Math::Accumulator;
  using E = typename Math::Element;
  constexpr int kM = Tile::kM, kN = Tile::kN, kThreads = Tile::kThreads;
  if (!wanted(job.shift_mode, *job.scalars)) return;

  MMCUDA_DYNAMIC_SHARED(shared);
  const int thread = static_cast<int>(threadIdx.x), warp_row = warp_id() * 16 * kM;
  const int row = static_cast<int>(blockIdx.x) * Tile::kTile;
  const int first_panel = static_cast<int>(blockIdx.y) * kPanels;
  const int slice = min(kPanels, job.panels - first_panel);  // panels
  const int begin = static_cast<int>(int64_t{job.tiles} * blockIdx.z / gridDim.z);
  const int end = static_cast<int>(int64_t{job.tiles} * (blockIdx.z + 1) / gridDim.z);
  const bool held = job.panels <= kPanels;
  const auto stage_of = [&](int s) { return shared + kPanels * Tile::kOwnPanel + s * Tile::kStage; };
  const auto pairs_of = [&](int tile) {
    return TilePairs<kM>(job.own, job.other, row, tile * Tile::kColumns, Tile::kTile, Tile::kColumns, job.distance,
                         warp_row, 0);
  };

  // Starts copying the block's slice of tile `tile` of Y, and labels of its rows.
  const auto copy_tile = [&](int tile, unsigned char* stage) {
#pragma unroll 1
    for (int panel = 0; panel < slice; ++panel) {
      copy_panel<Tile::kColumns, kThreads>(stage + panel * Tile::kOtherPanel, job.other, tile * Tile::kColumns,
                                           first_panel + panel);
    }
    if (Forces<Math, kM>::kLabels && thread < Tile::kColumns) {
      const int j = tile * Tile::kColumns + thread;
      const bool valid = j < job.other.count;
      const int64_t item = valid ? job.other.first + j : 0;
      unsigned char* const labels = stage + kPanels * Tile::kOtherPanel;
      const auto copy = [&](int array, const T* from) {
        void* const to = labels + (array * Tile::kColumns + thread) * sizeof(T);
        if constexpr (sizeof(T) == 4) {
          cp_async_4(to, from + item, valid);
        } else {
          cp_async_8(to, from + item, valid);
        }
      };
      copy(0, job.coefficient);
      copy(1, job.positive);
      cp_async_4(labels + 2 * Tile::kColumns * sizeof(T) + 4 * thread, job.set[0].order + item, valid);
    }
  };

  Forces<Math, kM> forces(job, pairs_of(begin));
  T gradient[kM][Tile::kAccumulators][4];
  clear(gradient);
  const auto add_tile = [&](T(&acc)[kM][kN][4], int tile, const unsigned char* stage) {
    forces.apply(job, acc, pairs_of(tile), stage + kPanels * Tile::kOtherPanel, gradient);
    multiply_rows<Math, kM, kN, kPanels>(gradient, acc, stage, slice);
  };

  if (held) {
    std::conditional_t<Tile::kOwnInRegisters, OwnFragments<Math, Tile>, OwnPanels<Math, Tile>> own;
#pragma unroll 1
    for (int panel = 0; panel < job.panels; ++panel) {
      copy_panel<Tile::kTile, kThreads>(shared + panel * Tile::kOwnPanel, job.own, row, panel);
    }
    copy_tile(begin, stage_of(0));
    cp_async_commit();
    for (int tile = begin, s = 0; tile < end; ++tile, s ^= 1) {
      cp_async_wait<0>();
      __syncthreads();
      if (tile + 1 < end) copy_tile(tile + 1, stage_of(s ^ 1));
      cp_async_commit();
      T acc[kM][kN][4];
      clear(acc);
      if (tile == begin) own.load(shared, warp_row, job.panels);
      own.multiply(acc, shared, warp_row, stage_of(s), job.panels);
      add_tile(acc, tile, stage_of(s));
    }
  } else if constexpr (kPanels == Math::kMostPanels || !Forces<Math, 1>::kLabels) {
    // Slot s: the s-th own panel and the s-th of stage 1.
    const auto copy_step = [&](int tile, int panel, int slot) {
      copy_panel<Tile::kTile, kThreads>(shared + slot * Tile::kOwnPanel, job.own, row, panel);
      copy_panel<Tile::kColumns, kThreads>(stage_of(1) + slot * Tile::kOtherPanel, job.other, tile * Tile::kColumns,
                                           panel);
    };
    copy_step(begin, 0, 0);
    cp_async_commit();
    for (int tile = begin, slot = 0; tile < end; ++tile) {
      T acc[kM][kN][4];
      clear(acc);
      for (int panel = 0; panel < job.panels; ++panel, slot ^= 1) {
        cp_async_wait<0>();
        __syncthreads();
        if (panel == 0) copy_tile(tile, stage_of(0));  // nobody multiplies with the slice of the last tile any more
        if (panel + 1 < job.panels) {
          copy_step(tile, panel + 1, slot ^ 1);
        } else if (tile + 1 < end) {
          copy_step(tile + 1, 0, slot ^ 1);
        }
        cp_async_commit();
        multiply_panel<Math>(acc, shared + slot * Tile::kOwnPanel, warp_row, stage_of(1) + slot * Tile::kOtherPanel, 0);
      }
      add_tile(acc, tile, stage_of(0));
    }
  }
  const TilePairs<kM> pairs = pairs_of(begin);
  forces.finish(job, pairs, first_panel * Math::kPanel, gradient);

  // The lane's rows, runs of neighbouring features
  const T unit = T(1 / job.scalars->gradient_unit);
  const int64_t limit = job.partial ? job.partial_stride : job.d;
#pragma unroll
  for (int r = 0; r < 2 * kM; ++r) {
    const int i = pairs.row_of(r / 2, r % 2);
    const bool exists = i < pairs.rows;
    const bool bad = exists && !job.partial &&
                     gradient_nonfinite(*job.scalars, job.squares, job.rows, job.own.first + i, job.symmetric);
#pragma unroll
    for (int group = 0; group < kPanels * Math::kGroups; ++group) {
      Math::for_each_run(&gradient[r / 2][group * Math::kGroup], group % Math::kGroups, r % 2,
                         [&](int feature, const T(&values)[Math::kRun]) {
                           const int64_t k = int64_t{first_panel + group / Math::kGroups} * Math::kPanel + feature;
                           if (!exists || k >= limit) return;
                           T scaled[Math::kRun];
                           for (int v = 0; v < Math::kRun; ++v) scaled[v] = bad ? T(NAN) : values[v] * unit;
                           if (job.partial) {
                             store_run(job.partial + (int64_t{blockIdx.z} * job.own.count + i) * job.partial_stride + k,
                                       scaled);
                           } else {
                             store_run(static_cast<E*>(job.gradient) + i * job.d + k, scaled);
                           }
                         });
    }
  }
}

// Adds the partial gradients of the splits in their order: [splits, count, stride] to [count, d].
template <class E, class T>
__global__ void __launch_bounds__(kPrepareThreads)
    add_gradients_kernel(const __grid_constant__ BackwardJob<T> job, int splits) {
  const int64_t count = job.own.count * job.d;
  for (int64_t c = global_thread(); c < count; c += all_threads()) {
    const int64_t i = c / job.d, k = c % job.d;
    T sum = 0;
    for (int s = 0; s < splits; ++s) sum += job.partial[(s * int64_t{job.own.count} + i) * job.partial_stride + k];
    const bool bad = gradient_nonfinite(*job.scalars, job.squares, job.rows, job.own.first + i, job.symmetric);
    static_cast<E*>(job.gradient)[c] = narrow<E>(bad ? T(NAN) : sum);
  }
}

}  // namespace mmcuda
