// Relations of the pairs in a warp's tile: which pairs there are, and r_kij of any attribute.
//
// A slice is the part of the tile in one column of accumulators: the lane's 2 kM rows 16 m + 8 h + g and 2 columns.
// Per-item data come straight from global memory: a warp reads eight neighbours, one sector, and mostly from L1.

#pragma once

#include "batch.cuh"

namespace mmcuda {

// The pairs of a block's tile that one warp has. Rows are items of one side and columns items of the other.
template <int kM>
struct TilePairs {
  int row, column;            // of the lane's first accumulator, in their sides
  int rows, columns;          // how many there are
  int row_item, column_item;  // item of row 0, of column 0
  int distance;               // row i and column i + distance are no pair
  bool full;                  // every pair of the block's tile is one

  __device__ __forceinline__ TilePairs(const Side& own, const Side& other, int first_row, int first_column, int size,
                                       int size_of_columns, int distance_, int warp_row, int warp_column)
      : row(first_row + warp_row + (lane_id() >> 2)),
        column(first_column + warp_column + 2 * (lane_id() & 3)),
        rows(own.count),
        columns(other.count),
        row_item(own.first),
        column_item(other.first),
        distance(distance_) {
    const int nearest = first_column - first_row - (size - 1),
              farthest = first_column + size_of_columns - 1 - first_row;
    full = first_row + size <= rows && first_column + size_of_columns <= columns &&
           (distance < nearest || distance > farthest);
  }

  __device__ __forceinline__ int row_of(int m, int half) const { return row + 16 * m + 8 * half; }
  __device__ __forceinline__ int column_of(int n, int e) const { return column + 8 * n + e; }
  // Rows and columns that are not there read the last one's labels.
  __device__ __forceinline__ int item_of_row(int m, int half) const {
    return row_item + min(row_of(m, half), rows - 1);
  }
  __device__ __forceinline__ int item_of_column(int n, int e) const {
    return column_item + min(column_of(n, e), columns - 1);
  }
  __device__ __forceinline__ bool exists(int m, int n, int v) const {
    const int i = row_of(m, v >> 1), j = column_of(n, v & 1);
    return i < rows && j < columns && j - i != distance;
  }
};

// v of a slice [kM][4] where there is a pair; calls use(m, v)
template <int kM, class Use>
__device__ __forceinline__ void for_slice(const Use& use) {
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int v = 0; v < 4; ++v) use(m, v);
  }
}

// The Jaccard index of two bit sets over the bits known in both: 1 if both are empty there, 0 if no bit is.
template <class T>
__device__ __forceinline__ T jaccard(const DeviceRelation<T>& set, int64_t items, int i, int j) {
  int both = 0, either = 0;
  bool known = false;
  for (int w = 0; w < set.words; ++w) {
    const int32_t* const bits = set.bits + 2 * w * items;
    const int32_t* const knows = bits + items;
    const int32_t known_in_both = load_global<int32_t>(knows + i) & load_global<int32_t>(knows + j);
    const int32_t of_i = load_global<int32_t>(bits + i), of_j = load_global<int32_t>(bits + j);
    both += __popc(of_i & of_j);
    either += __popc((of_i | of_j) & known_in_both);
    known |= known_in_both != 0;
  }
  return either ? T(both) / T(either) : T(known ? 1 : 0);
}

// r_kij of a slice as its rows see it, and as its columns do. A mask need not be symmetric.
template <class T, int kM>
struct Related {
  T row[kM][4], column[kM][4];

  // Accumulator column n. `swapped`: rows of the tile are the columns of the operator; `self`: they are the same.
  __device__ __forceinline__ Related(const DeviceRelation<T>& set, int64_t items, const TilePairs<kM>& pairs, int n,
                                     bool self, bool swapped) {
    const int j[2] = {pairs.item_of_column(n, 0), pairs.item_of_column(n, 1)};
    if (set.relation == Relation::kMask) {
      const int64_t b[2] = {load_global<int32_t>(set.mask_index + j[0]), load_global<int32_t>(set.mask_index + j[1])};
      for_slice<kM>([&](int m, int v) {
        const int64_t a = load_global<int32_t>(set.mask_index + pairs.item_of_row(m, v >> 1)), c = b[v & 1];
        row[m][v] = load_global<T>(set.mask + (swapped ? c * set.mask_columns + a : a * set.mask_columns + c));
        column[m][v] = self ? load_global<T>(set.mask + c * set.mask_columns + a) : row[m][v];
      });
      return;
    }
    const int order[2] = {load_global<int32_t>(set.order + j[0]), load_global<int32_t>(set.order + j[1])};
    for_slice<kM>([&](int m, int v) {
      const int i = pairs.item_of_row(m, v >> 1);
      const int begin = load_global<int32_t>(set.first + i), end = load_global<int32_t>(set.last + i);
      row[m][v] = order[v & 1] >= begin && order[v & 1] <= end ? T(1) : T(0);
    });
    if (set.relation == Relation::kGaussian) {
      const T value[2] = {load_global<T>(set.value + j[0]), load_global<T>(set.value + j[1])};
      const T value_lo[2] = {load_global<T>(set.value_lo + j[0]), load_global<T>(set.value_lo + j[1])};
      for_slice<kM>([&](int m, int v) {
        const int i = pairs.item_of_row(m, v >> 1);
        const T smaller = value_lo[v & 1] - load_global<T>(set.value_lo + i);
        const T difference = value[v & 1] - load_global<T>(set.value + i) + smaller;
        const T gauss = exp2_of(-difference * difference);
        row[m][v] *= gauss < 1 ? gauss : T(1);  // rounding must not lift it above 1
      });
    } else if (set.relation == Relation::kOverlap) {
      for_slice<kM>([&](int m, int v) {
        if (row[m][v] == 0) row[m][v] = jaccard(set, items, pairs.item_of_row(m, v >> 1), j[v & 1]);
      });
    }
    for_slice<kM>([&](int m, int v) { column[m][v] = row[m][v]; });
  }
};

}  // namespace mmcuda
