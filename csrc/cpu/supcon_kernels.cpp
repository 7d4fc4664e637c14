// The CPU kernels, compiled once per instruction set (MMCUDA_ISA) from this one source with the compiler's vector
// types.
//
// A block pair is 96 x 96 logits. It is computed in micro-tiles of kRows x kCols that stay in registers over D:
//
//     panel j0 (kCols columns, [D, kCols])         for each panel of block J
//   +--------------------------------------+
//   | micro-tile: kRows rows of block I    |       for each group of rows of block I
//   +--------------------------------------+       -> epilogue: exp, label relation, sums (forward) or H (backward)
//
// Micro-tiles that touch the diagonal or the padding take the masked epilogue: it keeps pairs i < j < N.
// Nothing here is shared between translation units: a standard template compiled for AVX-512 and merged by the linker
// would crash an older machine, so no standard header with code is included.

#include "../supcon.h"

#if defined(__AVX512F__)
#define MMCUDA_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define MMCUDA_VECTOR_BYTES 32
#else
#define MMCUDA_VECTOR_BYTES 16
#endif

namespace mmcuda {
namespace {

constexpr int64_t kWide = MMCUDA_VECTOR_BYTES == 64;
constexpr int64_t kRows = kWide ? 8 : 6;  // micro-tile: kRows x kVecs accumulators fill the register file
constexpr int64_t kVecs = kWide ? 3 : 2;
constexpr int64_t kProductRows = kWide ? 12 : 6;  // register block of the product H X: kProductRows x 2 vectors

template <class T>
struct Simd;

template <>
struct Simd<float> {
  typedef float Vec __attribute__((vector_size(MMCUDA_VECTOR_BYTES)));
  typedef int32_t Int __attribute__((vector_size(MMCUDA_VECTOR_BYTES)));
  static constexpr float kLowest = -3.4028234663852886e38f;
  static constexpr float kMinExponent = -126.f;
  static constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  static constexpr int kMantissaBits = 23;
  // 2^f on [-1/2, 1/2], Chebyshev interpolation, relative error 1.0e-7
  static constexpr float kExp2[] = {1.00000007545489719f,   0.693147188026228781f,   0.240221074853083375f,
                                    0.0555035711421907782f, 0.00967603191832205408f, 0.00133908633646712344f};
};

template <>
struct Simd<double> {
  typedef double Vec __attribute__((vector_size(MMCUDA_VECTOR_BYTES)));
  typedef int64_t Int __attribute__((vector_size(MMCUDA_VECTOR_BYTES)));
  static constexpr double kLowest = -1.7976931348623157e308;
  static constexpr double kMinExponent = -1022.;
  static constexpr double kRound = 6755399441055744.;  // 1.5 * 2^52
  static constexpr int kMantissaBits = 52;
  // relative error 4.2e-18
  static constexpr double kExp2[] = {0.999999999999999997,    0.693147180559945309,   0.240226506959101596,
                                     0.055504108664821627,    0.00961812910758725667, 0.00133335581464064707,
                                     0.000154035304637243542, 1.52527338415567726e-5, 1.32154325359123762e-6,
                                     1.01780570877339411e-7,  7.07419429728852101e-9, 4.45581790833606449e-10};
};

template <class T>
using Vec = typename Simd<T>::Vec;
template <class T>
using Int = typename Simd<T>::Int;
template <class T>
constexpr int64_t kLanes = MMCUDA_VECTOR_BYTES / sizeof(T);
template <class T>
constexpr int64_t kCols = kVecs * kLanes<T>;

template <class V, class T>
inline V load(const T* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(V));
  return v;
}

template <class V, class T>
inline void store(T* to, V v) {
  __builtin_memcpy(to, &v, sizeof(V));
}

template <class T>
inline T reduce_add(Vec<T> v) {
  T total = v[0];
  for (int64_t lane = 1; lane < kLanes<T>; ++lane) total += v[lane];
  return total;
}

template <class T>
inline T reduce_max(Vec<T> v) {
  T top = v[0];
  for (int64_t lane = 1; lane < kLanes<T>; ++lane) top = v[lane] > top ? v[lane] : top;
  return top;
}

// 2^x for x <= 0; results below the smallest normal number become that number.
template <class T>
inline Vec<T> exp2(Vec<T> x) {
  using S = Simd<T>;
  x = x < S::kMinExponent ? Vec<T>{} + S::kMinExponent : x;
  const Vec<T> rounded = x + S::kRound;
  const Vec<T> f = x - (rounded - S::kRound);
  constexpr int kDegree = sizeof(S::kExp2) / sizeof(T) - 1;
  Vec<T> p = Vec<T>{} + S::kExp2[kDegree];
#pragma GCC unroll 12
  for (int c = kDegree - 1; c >= 0; --c) p = p * f + S::kExp2[c];
  // p 2^n: n sits in the low bits of `rounded`; shifted to the exponent field, everything above n falls off.
  return (Vec<T>)((Int<T>)p + ((Int<T>)rounded << S::kMantissaBits));
}

// s[r][c] = rows[r] . panel column c
template <class T>
inline void multiply(const T* rows, int64_t stride, const T* panel, int64_t d, T (&s)[kRows][kCols<T>]) {
  Vec<T> sum[kRows][kVecs] = {};
  for (int64_t k = 0; k < d; ++k) {
    Vec<T> column[kVecs];
#pragma GCC unroll 3
    for (int v = 0; v < kVecs; ++v) column[v] = load<Vec<T>>(panel + k * kCols<T> + v * kLanes<T>);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < kVecs; ++v) sum[r][v] += rows[r * stride + k] * column[v];
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < kVecs; ++v) store(&s[r][v * kLanes<T>], sum[r][v]);
}

// Visits the micro-tiles of block pair (I, J) with a column in j > i and in j < N.
// tile(i0, j0, s, masked) is called for each.
template <class T, class Tile>
inline void visit(const Batch<T>& batch, int64_t block_i, int64_t block_j, Tile&& tile) {
  const int64_t begin_i = block_i * kBlock, begin_j = block_j * kBlock;
  alignas(64) T s[kRows][kCols<T>];
  for (int64_t j0 = begin_j; j0 < begin_j + kBlock && j0 < batch.n; j0 += kCols<T>) {
    const T* panel = batch.panels + j0 * batch.d;
    for (int64_t i0 = begin_i; i0 < begin_i + kBlock && i0 < j0 + kCols<T>; i0 += kRows) {
      multiply(batch.rows + i0 * batch.dp, batch.dp, panel, batch.d, s);
      tile(i0, j0, s, i0 + kRows > j0 || j0 + kCols<T> > batch.n);
    }
  }
}

// Lanes j + 0, 1, ... that hold a pair i < j < N.
template <class T>
inline Int<T> valid_pairs(const Batch<T>& batch, int64_t i, int64_t j) {
  using Index = typename Batch<T>::Index;
  Int<T> lane;
  for (int64_t l = 0; l < kLanes<T>; ++l) lane[l] = Index(j + l);
  return (lane > Index(i)) & (lane < Index(batch.n));
}

// W_ij and W_ji of row i and columns j + 0, 1, ... (in the backward times g_i and g_j).
template <class T>
struct PairWeights {
  Vec<T> row, column;
};

template <class T>
inline PairWeights<T> pair_weights(const Batch<T>& batch, int64_t i, int64_t j) {
  PairWeights<T> w = {};
  for (int64_t k = 0; k < batch.sets; ++k) {
    const int64_t set = k * batch.np;
    const Int<T> rank = load<Int<T>>(batch.rank + set + j);
    const Int<T> related = (rank >= batch.first[set + i]) & (rank <= batch.last[set + i]);
    w.row += related ? Vec<T>{} + batch.positive[set + i] : Vec<T>{};
    w.column += related ? load<Vec<T>>(batch.positive + set + j) : Vec<T>{};
  }
  if (batch.mask) {
    const int64_t a = batch.sample[i];
    for (int64_t l = 0; l < kLanes<T>; ++l) {
      const int64_t b = batch.sample[j + l];
      w.row[l] += batch.mask[a * batch.samples + b] * batch.masked[i];
      w.column[l] += batch.mask[b * batch.samples + a] * batch.masked[j + l];
    }
  }
  return w;
}

// ---- forward -------------------------------------------------------------------------------------------------------

// Sums of one block pair: for each row a vector, one partial sum a lane; for each column a number.
template <class T>
struct BlockSums {
  alignas(64) T row[kBlock][kLanes<T>] = {};
  alignas(64) T column[kBlock] = {};

  void add_to(double* total, int64_t begin_i, int64_t begin_j) const {
    for (int64_t r = 0; r < kBlock; ++r) total[begin_i + r] += reduce_add<T>(load<Vec<T>>(row[r]));
    for (int64_t c = 0; c < kBlock; ++c) total[begin_j + c] += column[c];
  }
};

// One exp a pair: exp(s - shift) is added to row i and to column j.
template <class T>
void forward_constant(const Batch<T>& batch, int64_t block_i, int64_t block_j, const RowStatistics<T>& out) {
  const int64_t begin_i = block_i * kBlock, begin_j = block_j * kBlock;
  BlockSums<T> sums, positives;

  const auto tile = [&]<bool kMasked>(int64_t i0, int64_t j0, const T(&s)[kRows][kCols<T>]) {
    T* const column_sums = sums.column + (j0 - begin_j);
    T* const column_positives = positives.column + (j0 - begin_j);
    Vec<T> column_sum[kVecs], column_positive[kVecs];
    for (int v = 0; v < kVecs; ++v) {
      column_sum[v] = load<Vec<T>>(column_sums + v * kLanes<T>);
      column_positive[v] = load<Vec<T>>(column_positives + v * kLanes<T>);
    }
    for (int r = 0; r < kRows; ++r) {
      const int64_t i = i0 + r;
      Vec<T> sum = load<Vec<T>>(sums.row[i - begin_i]), positive = load<Vec<T>>(positives.row[i - begin_i]);
#pragma GCC unroll 3
      for (int v = 0; v < kVecs; ++v) {
        const int64_t j = j0 + v * kLanes<T>;
        const Vec<T> dot = load<Vec<T>>(&s[r][v * kLanes<T>]);
        Vec<T> e = exp2<T>((dot - batch.shift) * batch.scale);
        PairWeights<T> w = pair_weights(batch, i, j);
        if constexpr (kMasked) {
          const Int<T> valid = valid_pairs(batch, i, j);
          e = valid ? e : Vec<T>{};
          w.row = valid ? w.row : Vec<T>{};
          w.column = valid ? w.column : Vec<T>{};
        }
        sum += e;
        column_sum[v] += e;
        positive += w.row * dot;
        column_positive[v] += w.column * dot;
      }
      store(sums.row[i - begin_i], sum);
      store(positives.row[i - begin_i], positive);
    }
    for (int v = 0; v < kVecs; ++v) {
      store(column_sums + v * kLanes<T>, column_sum[v]);
      store(column_positives + v * kLanes<T>, column_positive[v]);
    }
  };
  visit(batch, block_i, block_j, [&](int64_t i0, int64_t j0, const T(&s)[kRows][kCols<T>], bool masked) {
    masked ? tile.template operator()<true>(i0, j0, s) : tile.template operator()<false>(i0, j0, s);
  });
  sums.add_to(out.sum, begin_i, begin_j);
  positives.add_to(out.positive, begin_i, begin_j);
}

// Logits of any size: rows and columns keep their running maximum, at the price of a second exp a pair.
template <class T>
void forward_online(const Batch<T>& batch, int64_t block_i, int64_t block_j, const RowStatistics<T>& out) {
  const int64_t begin_i = block_i * kBlock, begin_j = block_j * kBlock;
  const Vec<T> lowest = Vec<T>{} + Simd<T>::kLowest;
  BlockSums<T> positives;

  visit(batch, block_i, block_j, [&](int64_t i0, int64_t j0, T(&s)[kRows][kCols<T>], bool) {
    Vec<T> column_top[kVecs];
    for (int v = 0; v < kVecs; ++v) column_top[v] = lowest;
    for (int r = 0; r < kRows; ++r) {
      const int64_t i = i0 + r;
      Vec<T> row_top = lowest, positive = load<Vec<T>>(positives.row[i - begin_i]), sum = {};
      for (int v = 0; v < kVecs; ++v) {
        const int64_t j = j0 + v * kLanes<T>;
        T* const column_positive = positives.column + (j - begin_j);
        const Int<T> valid = valid_pairs(batch, i, j);
        const Vec<T> dot = load<Vec<T>>(&s[r][v * kLanes<T>]);
        const PairWeights<T> w = pair_weights(batch, i, j);
        positive += valid ? w.row * dot : Vec<T>{};
        store(column_positive, load<Vec<T>>(column_positive) + (valid ? w.column * dot : Vec<T>{}));
        const Vec<T> seen = valid ? dot : lowest;
        store(&s[r][v * kLanes<T>], seen);
        row_top = seen > row_top ? seen : row_top;
        column_top[v] = seen > column_top[v] ? seen : column_top[v];
      }
      store(positives.row[i - begin_i], positive);
      const T old_max = out.max[i], tile_max = reduce_max<T>(row_top);
      const T new_max = tile_max > old_max ? tile_max : old_max;
      for (int v = 0; v < kVecs; ++v) {
        const Vec<T> dot = load<Vec<T>>(&s[r][v * kLanes<T>]);
        sum += dot > lowest ? exp2<T>((dot - new_max) * batch.scale) : Vec<T>{};
      }
      if (new_max > old_max) out.sum[i] *= exp2<T>(Vec<T>{} + (old_max - new_max) * batch.scale)[0];
      out.sum[i] += reduce_add<T>(sum);
      out.max[i] = new_max;
    }
    for (int v = 0; v < kVecs; ++v) {
      const int64_t j = j0 + v * kLanes<T>;
      // Read only now: on the diagonal the rows above are columns too.
      const Vec<T> old_max = load<Vec<T>>(out.max + j);
      const Vec<T> new_max = column_top[v] > old_max ? column_top[v] : old_max;
      const Vec<T> rescale = new_max > old_max ? exp2<T>((old_max - new_max) * batch.scale) : Vec<T>{} + 1;
      Vec<T> sum = {};
      for (int r = 0; r < kRows; ++r) {
        const Vec<T> dot = load<Vec<T>>(&s[r][v * kLanes<T>]);
        sum += dot > lowest ? exp2<T>((dot - new_max) * batch.scale) : Vec<T>{};
      }
      for (int64_t l = 0; l < kLanes<T>; ++l) out.sum[j + l] = out.sum[j + l] * rescale[l] + sum[l];
      store(out.max + j, new_max);
    }
  });
  positives.add_to(out.positive, begin_i, begin_j);
}

template <class T>
void forward(const Batch<T>& batch, int64_t block_i, int64_t block_j, const RowStatistics<T>& out) {
  batch.constant_shift ? forward_constant(batch, block_i, block_j, out) : forward_online(batch, block_i, block_j, out);
}

// ---- backward ------------------------------------------------------------------------------------------------------

// c [kBlock, Dp] += op(h) [kBlock, kBlock] x [kBlock, Dp], op(h) = h or its transpose.
template <class T, bool kTranspose>
inline void add_product(const T (&h)[kBlock][kBlock], const T* x, int64_t dp, T* c) {
  for (int64_t d = 0; d < dp; d += 2 * kLanes<T>) {
    for (int64_t i = 0; i < kBlock; i += kProductRows) {
      Vec<T> sum[kProductRows][2];
#pragma GCC unroll 12
      for (int r = 0; r < kProductRows; ++r) {
        sum[r][0] = load<Vec<T>>(c + (i + r) * dp + d);
        sum[r][1] = load<Vec<T>>(c + (i + r) * dp + d + kLanes<T>);
      }
      for (int64_t k = 0; k < kBlock; ++k) {
        const Vec<T> x0 = load<Vec<T>>(x + k * dp + d), x1 = load<Vec<T>>(x + k * dp + d + kLanes<T>);
#pragma GCC unroll 12
        for (int r = 0; r < kProductRows; ++r) {
          const T weight = kTranspose ? h[k][i + r] : h[i + r][k];
          sum[r][0] += weight * x0;
          sum[r][1] += weight * x1;
        }
      }
#pragma GCC unroll 12
      for (int r = 0; r < kProductRows; ++r) {
        store(c + (i + r) * dp + d, sum[r][0]);
        store(c + (i + r) * dp + d + kLanes<T>, sum[r][1]);
      }
    }
  }
}

template <class T, bool kConstantShift>
void backward_block(const Batch<T>& batch, int64_t block_i, int64_t block_j, const RowGradients<T>& rows, T* gradient) {
  const int64_t begin_i = block_i * kBlock, begin_j = block_j * kBlock;
  // H for i < j of this block pair: its product gives the rows' side, that of its transpose the columns'.
  alignas(64) T h[kBlock][kBlock];
  if (block_i == block_j || begin_j + kBlock > batch.n) __builtin_memset(h, 0, sizeof(h));

  const auto tile = [&]<bool kMasked>(int64_t i0, int64_t j0, const T(&s)[kRows][kCols<T>]) {
    for (int r = 0; r < kRows; ++r) {
      const int64_t i = i0 + r;
#pragma GCC unroll 3
      for (int v = 0; v < kVecs; ++v) {
        const int64_t j = j0 + v * kLanes<T>;
        const Vec<T> dot = load<Vec<T>>(&s[r][v * kLanes<T>]);
        const Vec<T> softmax_j = load<Vec<T>>(rows.softmax + j);
        Vec<T> value;
        if constexpr (kConstantShift) {
          value = exp2<T>((dot - batch.shift) * batch.scale) * (softmax_j + rows.softmax[i]);
        } else {
          value = exp2<T>((dot - rows.max[i]) * batch.scale) * rows.softmax[i];
          value += exp2<T>((dot - load<Vec<T>>(rows.max + j)) * batch.scale) * softmax_j;
        }
        const PairWeights<T> w = pair_weights(batch, i, j);
        value -= w.row + w.column;
        if constexpr (kMasked) value = valid_pairs(batch, i, j) ? value : Vec<T>{};
        store(&h[i - begin_i][j - begin_j], value);
      }
    }
  };
  visit(batch, block_i, block_j, [&](int64_t i0, int64_t j0, const T(&s)[kRows][kCols<T>], bool masked) {
    masked ? tile.template operator()<true>(i0, j0, s) : tile.template operator()<false>(i0, j0, s);
  });
  add_product<T, false>(h, batch.rows + begin_j * batch.dp, batch.dp, gradient + begin_i * batch.dp);
  add_product<T, true>(h, batch.rows + begin_i * batch.dp, batch.dp, gradient + begin_j * batch.dp);
}

template <class T>
void backward(const Batch<T>& batch, int64_t block_i, int64_t block_j, const RowGradients<T>& rows, T* gradient) {
  batch.constant_shift ? backward_block<T, true>(batch, block_i, block_j, rows, gradient)
                       : backward_block<T, false>(batch, block_i, block_j, rows, gradient);
}

template <class T>
void pack(const Batch<T>& batch, const T* features, int64_t begin, int64_t end, T* rows, T* panels) {
  for (int64_t i = begin; i < end; ++i) {
    T* row = rows + i * batch.dp;
    __builtin_memset(row, 0, batch.dp * sizeof(T));
    if (i < batch.n) __builtin_memcpy(row, features + i * batch.d, batch.d * sizeof(T));
    T* column = panels + i / kCols<T> * kCols<T> * batch.d + i % kCols<T>;
    for (int64_t k = 0; k < batch.d; ++k) column[k * kCols<T>] = row[k];
  }
}

template <class T>
constexpr Kernels<T> kernels() {
  static_assert(kBlock % kRows == 0 && kBlock % kCols<T> == 0 && kBlock % kProductRows == 0);
  return {kCols<T>, 2 * kLanes<T>, pack<T>, forward<T>, backward<T>};
}

}  // namespace

#define MMCUDA_STRING(name) #name
#define MMCUDA_NAME(name) MMCUDA_STRING(name)
#define MMCUDA_SYMBOL_OF(name) k_##name
#define MMCUDA_SYMBOL(name) MMCUDA_SYMBOL_OF(name)
extern const InstructionSet MMCUDA_SYMBOL(MMCUDA_ISA);
constexpr InstructionSet MMCUDA_SYMBOL(MMCUDA_ISA) = {MMCUDA_NAME(MMCUDA_ISA), kernels<float>(), kernels<double>()};

}  // namespace mmcuda
