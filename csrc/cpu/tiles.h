// The three matrix products of a block pair, for features stored as float, double or bfloat16.
//
//   logits       s [96, 96]  = X_I Y_J^T      in micro-tiles of kRows x kCols that stay in registers over D,
//                                             from a panel of J (kCols columns, transposed) and kRows rows of I
//   add_product  C_I [96, D] += h Y_J         in register blocks of kProductRows x 2 vectors of D
//   add_product  C_J [96, D] += h^T X_I       the same, h being read by columns
//
// As simd.h, this is included by contrastive_kernels.cpp only.

#pragma once

#include "../contrastive.h"
#include "simd.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace mmcuda {
namespace {

constexpr int64_t kWide = MMCUDA_VECTOR_BYTES == 64;
constexpr int64_t kRows = kWide ? 8 : 6;  // micro-tile: kRows x kVecs accumulators fill the register file
constexpr int64_t kVecs = kWide ? 3 : 2;
constexpr int64_t kProductRows = kWide ? 12 : 6;  // register block of a product: kProductRows x 2 vectors
template <class T>
constexpr int64_t kCols = kVecs * kLanes<T>;

template <class T>
using Block = T[kBlock][kBlock];

struct bfloat16 {
  uint16_t bits;
};

template <class E>
struct Accumulate {
  using type = E;
};
template <>
struct Accumulate<bfloat16> {
  using type = float;
};

inline float widen(bfloat16 value) { return __builtin_bit_cast(float, uint32_t{value.bits} << 16); }
inline float widen(float value) { return value; }
inline double widen(double value) { return value; }

// ---- the pairs of a block pair -------------------------------------------------------------------------------------

template <class T>
struct Pairs {
  int64_t begin_i, rows, begin_j, columns;  // real items
  int64_t diagonal;                         // c - r of the pairs of an item with itself; kBlock: there are none

  Pairs(const Batch<T>& batch, int64_t block_i, int64_t block_j)
      : begin_i(block_i * kBlock), begin_j(block_j * kBlock), diagonal(kBlock) {
    const int64_t left_i = batch.rows - begin_i, left_j = batch.column_begin + batch.columns - begin_j;
    rows = left_i < kBlock ? left_i : kBlock;
    columns = left_j < kBlock ? left_j : kBlock;
    const int64_t offset = begin_i + batch.anchor_offset - (begin_j - batch.column_begin);
    if (batch.anchor_offset >= 0 && -kBlock < offset && offset < kBlock) diagonal = offset;
  }

  // Sets the pairs that do not exist.
  void exclude(Block<T>& block, T value) const {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = columns; c < kBlock; ++c) block[r][c] = value;
      if (0 <= r + diagonal && r + diagonal < kBlock) block[r][r + diagonal] = value;
    }
  }

  // visit(r, c) for every vector of columns c, c + 1, ... of every row r
  template <class Visit>
  void for_each(const Visit& visit) const {
    for (int64_t c = 0; c < columns; c += kCols<T>) {
      for (int64_t r = 0; r < rows; ++r) {
#pragma GCC unroll 3
        for (int64_t v = 0; v < kVecs; ++v) visit(r, c + v * kLanes<T>);
      }
    }
  }
};

// ---- packing -------------------------------------------------------------------------------------------------------

// Transposes rows [kCols, dp] into panel [depth, kCols].
template <class T>
inline void pack_panel(const T* rows, int64_t dp, int64_t depth, T* panel) {
  constexpr int64_t kN = kLanes<T>;
  for (int64_t group = 0; group < kCols<T>; group += kN) {
    for (int64_t k = 0; k < depth; k += kN) {
      Vec<T> v[kN];
      for (int64_t r = 0; r < kN; ++r) v[r] = load<Vec<T>>(rows + (group + r) * dp + k);
      transpose<T>(v);
      for (int64_t r = 0; r < kN && k + r < depth; ++r) store(panel + (k + r) * kCols<T> + group, v[r]);
    }
  }
}

// E is the dtype that features are packed as, Source theirs.
template <class E, class Source>
void pack(const Batch<typename Accumulate<E>::type>& batch, const void* source, int64_t count, int64_t first_block,
          int64_t begin, int64_t end) {
  using T = typename Accumulate<E>::type;
  auto* const squares = const_cast<T*>(batch.squares);
  for (int64_t i = begin * kBlock; i < end * kBlock; ++i) {
    E* const row = static_cast<E*>(const_cast<void*>(batch.blocks[i / kBlock])) + i % kBlock * batch.dp;
    const int64_t index = i - first_block * kBlock;
    const Source* const from = static_cast<const Source*>(source) + index * batch.d;
    const bool exists = index < count;
    if (!exists || static_cast<const void*>(row) != from) {  // padding, or a copy
      __builtin_memset(row, 0, batch.dp * sizeof(E));
      for (int64_t k = 0; exists && k < batch.d; ++k) {
        if constexpr (sizeof(E) == sizeof(Source)) {
          row[k] = from[k];
        } else {
          row[k] = widen(from[k]);
        }
      }
    }
    Vec<T> sum = {};
    for (int64_t k = 0; k < batch.dp; k += kLanes<T>) {
      Vec<T> v;
      for (int64_t l = 0; l < kLanes<T>; ++l) v[l] = widen(row[k + l]);
      sum += v * v;
    }
    squares[i] = reduce_add<T>(sum);
  }
  // A panel holds T: one feature, or two of bfloat16, moved as one.
  constexpr int64_t kPerT = sizeof(T) / sizeof(E);
  const int64_t width = batch.dp / kPerT, depth = (batch.d + kPerT - 1) / kPerT;
  auto* const panels = static_cast<T*>(const_cast<void*>(batch.panels));
  for (int64_t j = begin * kBlock; panels && j < end * kBlock; j += kCols<T>) {
    const auto* const rows = static_cast<const T*>(batch.blocks[j / kBlock]) + j % kBlock * width;
    pack_panel<T>(rows, width, depth, panels + j * depth);
  }
  if constexpr (kPerT == 2) {
    auto* const pairs = static_cast<uint32_t*>(const_cast<void*>(batch.pairs));
    for (int64_t i = begin * kBlock; i < end * kBlock; i += 2) {
      const auto* const even = static_cast<const E*>(batch.blocks[i / kBlock]) + i % kBlock * batch.dp;
      for (int64_t k = 0; k < batch.dp; ++k) {
        pairs[i / 2 * batch.dp + k] = even[k].bits | uint32_t{even[batch.dp + k].bits} << 16;
      }
    }
  }
}

// ---- logits --------------------------------------------------------------------------------------------------------

// One step of a dot product: in bfloat16 two of its terms.
template <class T>
inline Vec<T> multiply_add(Vec<T> sum, T weight, Vec<T> v) {
  return sum + weight * v;
}

#ifdef __AVX512BF16__
struct bfloat16_pair {
  float bits;  // two bfloat16, never used as a float
};
inline Vec<float> multiply_add(Vec<float> sum, bfloat16_pair weight, Vec<float> v) {
  const __m512i broadcast = _mm512_set1_epi32(__builtin_bit_cast(int32_t, weight.bits));
  return (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)broadcast, (__m512bh)v);
}
#endif

// What is broadcast in a dot product: T, or a bfloat16_pair of the same size.
template <class E>
struct StepOf {
  using type = E;
};
#ifdef __AVX512BF16__
template <>
struct StepOf<bfloat16> {
  using type = bfloat16_pair;
};
#endif

// s[r][c] = row r . panel column c; rows have `stride` steps
template <class T, class Step>
inline void multiply(const Step* rows, int64_t stride, const T* panel, int64_t depth, T* s) {
  Vec<T> sum[kRows][kVecs] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Vec<T> column[kVecs];
#pragma GCC unroll 3
    for (int v = 0; v < kVecs; ++v) column[v] = load<Vec<T>>(panel + k * kCols<T> + v * kLanes<T>);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < kVecs; ++v) sum[r][v] = multiply_add(sum[r][v], rows[r * stride + k], column[v]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < kVecs; ++v) store(s + r * kBlock + v * kLanes<T>, sum[r][v]);
}

// Dot products of all pairs; rows and columns are rounded up to micro-tiles.
template <class E, class T>
inline void dot_products(const Batch<T>& batch, const Pairs<T>& pairs, Block<T>& s) {
  using Step = typename StepOf<E>::type;
  constexpr int64_t kPerStep = sizeof(Step) / sizeof(E);
  const int64_t stride = batch.dp / kPerStep, depth = (batch.d + kPerStep - 1) / kPerStep;
  const auto* const features = static_cast<const Step*>(batch.blocks[pairs.begin_i / kBlock]);
  const auto* const panels = static_cast<const T*>(batch.panels);
  for (int64_t c = 0; c < pairs.columns; c += kCols<T>) {
    for (int64_t r = 0; r < pairs.rows; r += kRows) {
      multiply(features + r * stride, stride, panels + (pairs.begin_j + c) * depth, depth, &s[r][c]);
    }
  }
}

// The dot products of a block pair, to work on: where they are kept, or in `scratch` if there is no such place (null).
// Those that an earlier pass has kept are not computed again.
template <class E, class T>
inline Block<T>& dot_products(const Batch<T>& batch, const Pairs<T>& pairs, T* kept, bool earlier, Block<T>& scratch) {
  Block<T>& s = kept ? *reinterpret_cast<Block<T>*>(kept) : scratch;
  if (!kept || !earlier) dot_products<E>(batch, pairs, s);
  return s;
}

// ---- products with the features ------------------------------------------------------------------------------------

// c [rows, Dp] += h x, with h(r, k) = h[r * row_stride + k * stride] and x [steps, Dp] in steps of one or two items;
// rows are rounded up to register blocks.
template <class T, class Step>
inline void multiply_rows(const Step* h, int64_t row_stride, int64_t stride, int64_t rows, int64_t steps, const T* x,
                          int64_t dp, T* c) {
  for (int64_t d = 0; d < dp; d += 2 * kLanes<T>) {
    for (int64_t i = 0; i < rows; i += kProductRows) {
      Vec<T> sum[kProductRows][2];
#pragma GCC unroll 12
      for (int r = 0; r < kProductRows; ++r) {
        sum[r][0] = load<Vec<T>>(c + (i + r) * dp + d);
        sum[r][1] = load<Vec<T>>(c + (i + r) * dp + d + kLanes<T>);
      }
      const Step* weights = h + i * row_stride;
      for (int64_t k = 0; k < steps; ++k, weights += stride) {
        const Vec<T> x0 = load<Vec<T>>(x + k * dp + d), x1 = load<Vec<T>>(x + k * dp + d + kLanes<T>);
#pragma GCC unroll 12
        for (int r = 0; r < kProductRows; ++r) {
          sum[r][0] = multiply_add(sum[r][0], weights[r * row_stride], x0);
          sum[r][1] = multiply_add(sum[r][1], weights[r * row_stride], x1);
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

// gradient of the rows += h x of the columns
template <class E, class T>
inline void add_product(const Batch<T>& batch, const Pairs<T>& pairs, const Block<T>& h, T* const* gradient) {
  T* const c = gradient[pairs.begin_i / kBlock];
  if constexpr (sizeof(E) == sizeof(T)) {
    const auto* const x = static_cast<const T*>(batch.blocks[pairs.begin_j / kBlock]);
    multiply_rows<T, T>(&h[0][0], kBlock, 1, pairs.rows, pairs.columns, x, batch.dp, c);
  } else {
#ifdef __AVX512BF16__
    // Neighbours in a row become one step.
    bfloat16_pair steps[kBlock][kBlock / 2];
    for (int64_t r = 0; r < pairs.rows; ++r) {
      for (int64_t column = 0; column < kBlock; column += 32) {
        const __m512 low = _mm512_loadu_ps(&h[r][column]), high = _mm512_loadu_ps(&h[r][column + 16]);
        store(&steps[r][column / 2], _mm512_cvtne2ps_pbh(high, low));
      }
    }
    const auto* const x = static_cast<const T*>(batch.pairs) + pairs.begin_j / 2 * batch.dp;
    multiply_rows<T>(&steps[0][0], kBlock / 2, 1, pairs.rows, (pairs.columns + 1) / 2, x, batch.dp, c);
#endif
  }
}

// gradient of the columns += h^T x of the rows
template <class E, class T>
inline void add_transposed_product(const Batch<T>& batch, const Pairs<T>& pairs, const Block<T>& h,
                                   T* const* gradient) {
  T* const c = gradient[pairs.begin_j / kBlock];
  if constexpr (sizeof(E) == sizeof(T)) {
    const auto* const x = static_cast<const T*>(batch.blocks[pairs.begin_i / kBlock]);
    multiply_rows<T, T>(&h[0][0], 1, kBlock, pairs.columns, pairs.rows, x, batch.dp, c);
  } else {
#ifdef __AVX512BF16__
    // Neighbours in a column become one step.
    const auto half = [](__m512 v) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(v)); };
    bfloat16_pair steps[kBlock / 2][kBlock];
    for (int64_t r = 0; r < pairs.rows; r += 2) {
      for (int64_t column = 0; column < kBlock; column += 16) {
        const __m512 odd = r + 1 < pairs.rows ? _mm512_loadu_ps(&h[r + 1][column]) : _mm512_setzero_ps();
        const __m512i low = half(_mm512_loadu_ps(&h[r][column])), high = _mm512_slli_epi32(half(odd), 16);
        store(&steps[r / 2][column], _mm512_or_si512(low, high));
      }
    }
    const auto* const x = static_cast<const T*>(batch.pairs) + pairs.begin_i / 2 * batch.dp;
    multiply_rows<T>(&steps[0][0], 1, kBlock, pairs.columns, (pairs.rows + 1) / 2, x, batch.dp, c);
#endif
  }
}

}  // namespace
}  // namespace mmcuda
