// The pair margin loss: l_ij = R d^2 + (W - R) max(0, margin - d)^2, d = |x_i - y_j|, on the tiles of the contrastive
// losses: one more epilogue of the forward and one of the backward.
//
// d^2 = |x|^2 + |y|^2 - 2 x.y loses the digits of a distance that is small beside the norms; such near pairs take the
// differences of their features instead.

#pragma once

#include "backward.cuh"
#include "forward.cuh"

namespace mmcuda {

// Near: d^2 is smaller than this part of |x|^2 + |y|^2. Its force takes differences, too, where smaller than this part.
template <class T>
constexpr T kNear = T(0.01);
template <class T>
constexpr T kVeryNear = T(0.0001);

// The pairs of a slice: R, and d^2 from products.
template <class T, int kM>
struct MarginSlice {
  T related[kM][4], square[kM][4], norms[kM][4];
  T all;  // W

  // dot(m, v) is x_i.y_j.
  template <class Job, class Dot>
  __device__ __forceinline__ MarginSlice(const Job& job, int sets, const TilePairs<kM>& pairs, int n, bool swapped,
                                         const Dot& dot)
      : all(0) {
    for_slice<kM>([&](int m, int v) { related[m][v] = 0; });
    for (int k = 0; k < sets; ++k) {
      const T weight = job.margin.weights[k];
      const Related<T, kM> relation(job.set[k], job.items, pairs, n, job.self, swapped);
      for_slice<kM>([&](int m, int v) { related[m][v] += weight * relation.row[m][v]; });
      all += weight;
    }
    const T of_j[2] = {load_global<T>(job.margin.squares + pairs.item_of_column(n, 0)),
                       load_global<T>(job.margin.squares + pairs.item_of_column(n, 1))};
    for_slice<kM>([&](int m, int v) {
      const T of_i = load_global<T>(job.margin.squares + pairs.item_of_row(m, v / 2));
      const T value = of_i + of_j[v % 2] - 2 * dot(m, v);
      square[m][v] = value > 0 ? value : T(0);
      norms[m][v] = of_i + of_j[v % 2];
    });
  }
};

template <class E, class T>
__device__ __forceinline__ T square_of_difference(const Side& x, int i, const Side& y, int j) {
  const unsigned char* const of_x = x.features + i * x.stride;
  const unsigned char* const of_y = y.features + j * y.stride;
  T sum = 0;
#pragma unroll 1
  for (int64_t byte = 0; byte < x.bytes; byte += sizeof(E)) {
    const T difference = widen<T>(load_global<E>(of_x + byte)) - widen<T>(load_global<E>(of_y + byte));
    sum += difference * difference;
  }
  return sum;
}

__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }

// Its one term is sum_j l_ij.
struct MarginSums {
  static constexpr bool kLabels = false;
  static constexpr int kBlocksPerSm = 1;

  template <class Math, class T, int kM, int kN>
  static __device__ __forceinline__ void add(const ForwardJob<T>& job, T (&acc)[kM][kN][4], const TilePairs<kM>& pairs,
                                             const WarpSums<T>& sums, const int*, const int*, const int*) {
    T of_row[2 * kM] = {}, of_columns[2 * kN];
#pragma unroll 1
    for (int n = 0; n < kN; ++n) {
      const MarginSlice<T, kM> slice(job, job.sets, pairs, n, false, [&](int m, int v) { return acc[m][0][v]; });
      T of_column[2] = {};
      for_slice<kM>([&](int m, int v) {
        const bool exists = pairs.full || pairs.exists(m, n, v);
        T square = slice.square[m][v];
        if (exists && square < kNear<T> * slice.norms[m][v]) {
          square = square_of_difference<typename Math::Element, T>(job.row, pairs.row_of(m, v / 2), job.column,
                                                                   pairs.column_of(n, v % 2));
        }
        const T room = job.margin.margin - square_root(square), gap = room > 0 ? room : T(0);
        const T loss = slice.related[m][v] * square + (slice.all - slice.related[m][v]) * gap * gap;
        of_row[2 * m + v / 2] += exists ? loss : T(0);
        of_column[v % 2] += exists ? loss : T(0);
      });
      AnySums::append(of_columns, of_column);
      AnySums::rotate(acc);
    }
    __syncwarp();  // near pairs have parted the lanes
    sums.add_rows(0, of_row);
    sums.add_columns(0, of_columns);
  }
};

// With B_ij = (g_i + g_j) b_ij the gradient of x_i is sum_j B_ij (x_i - y_j): H = -B, and at the end sum_j B_ij times
// x_i itself, of the same rounded B. Of very near pairs that sum, in 32 bits, would lose the difference: their forces
// are added by themselves and left out of H. Features of 16 bits that differ do so by more.
template <class Math, int kM>
struct MarginForces {
  using T = typename Math::Accumulator;
  using E = typename Math::Element;
  static constexpr bool kLabels = false;
  static constexpr bool kAlone = sizeof(E) > 2;  // very near pairs are
  T sum[2 * kM] = {};                            // of B, the lane's columns only

  __device__ __forceinline__ MarginForces(const BackwardJob<T>&, const TilePairs<kM>&) {}

  template <int kN, int kAccumulators>
  __device__ __forceinline__ void apply(const BackwardJob<T>& job, T (&acc)[kM][kN][4], const TilePairs<kM>& pairs,
                                        const unsigned char*, T (&gradient)[kM][kAccumulators][4]) {
    const T unit = T(job.scalars->gradient_unit), margin = job.margin.margin;
#pragma unroll 1
    for (int n = 0; n < kN; ++n) {
      const MarginSlice<T, kM> slice(job, job.sets, pairs, n, job.swapped, [&](int m, int v) { return acc[m][0][v]; });
      const T g_j[2] = {load_global<T>(job.margin.grad_output + pairs.item_of_column(n, 0)),
                        load_global<T>(job.margin.grad_output + pairs.item_of_column(n, 1))};
      T force[kM][4];      // B
      unsigned alone = 0;  // bit 4 m + v
      for_slice<kM>([&](int m, int v) {
        const bool exists = pairs.full || pairs.exists(m, n, v);
        T square = slice.square[m][v];
        if (exists && square < kNear<T> * slice.norms[m][v]) {
          square = square_of_difference<E, T>(job.own, pairs.row_of(m, v / 2), job.other, pairs.column_of(n, v % 2));
          if (kAlone && square < kVeryNear<T> * slice.norms[m][v]) alone |= 1u << (4 * m + v);
        }
        // Of two equal points the distance has no direction: no force.
        const T distance = square_root(square);
        const T push = square > 0 && distance < margin ? (margin - distance) / distance : T(0);
        const T grad_output = load_global<T>(job.margin.grad_output + pairs.item_of_row(m, v / 2)) + g_j[v % 2];
        const T related = slice.related[m][v];
        force[m][v] = exists ? grad_output * unit * (related - (slice.all - related) * push) : T(0);
      });
      __syncwarp();  // near pairs have parted the lanes; the shuffles and products behind need the whole warp
      if constexpr (kAlone) add_alone(job, pairs, n, alone, force, gradient);
      // What H Y rounds must be rounded in the sum, too: x_i - y_j is smaller than either.
      for_slice<kM>([&](int m, int v) {
        const T b = Math::rounded(alone >> (4 * m + v) & 1 ? T(0) : force[m][v]);
        sum[2 * m + v / 2] += b;
        force[m][v] = -b;
      });
      rotate(acc, force);
    }
  }

  // The forces of the pairs in `alone`, one after the other: the four lanes that have the gradient of its row add it.
  template <int kAccumulators>
  static __device__ __forceinline__ void add_alone(const BackwardJob<T>& job, const TilePairs<kM>& pairs, int n,
                                                   unsigned alone, const T (&force)[kM][4],
                                                   T (&gradient)[kM][kAccumulators][4]) {
    const int first = static_cast<int>(blockIdx.y) * kAccumulators * 8;  // feature of the block's slice
    for (;;) {
      const unsigned lanes = __ballot_sync(kWholeWarp, alone != 0);
      if (!lanes) break;
      const int source = __ffs(static_cast<int>(lanes)) - 1;
      const int bit = __shfl_sync(kWholeWarp, __ffs(static_cast<int>(alone)) - 1, source);
      T of_bit = 0;
      for_slice<kM>([&](int m, int v) { of_bit = bit == 4 * m + v ? force[m][v] : of_bit; });
      const T its_force = __shfl_sync(kWholeWarp, of_bit, source);
      if (source == lane_id()) alone &= alone - 1;
      if (source >> 2 != lane_id() >> 2) continue;
      const int i = pairs.row_of(bit / 4, bit % 4 / 2);
      const int j = pairs.column_of(n, bit % 2) + 2 * ((source & 3) - (lane_id() & 3));
      const unsigned char* const x = job.own.features + i * job.own.stride;
      const unsigned char* const y = job.other.features + j * job.other.stride;
#pragma unroll
      for (int a = 0; a < kAccumulators; ++a) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int64_t byte = (int64_t{first} + Math::feature(a, e)) * static_cast<int64_t>(sizeof(E));
          if (byte >= job.own.bytes) continue;
          const T difference = widen<T>(load_global<E>(x + byte)) - widen<T>(load_global<E>(y + byte));
#pragma unroll
          for (int r = 0; r < 2 * kM; ++r) {
            gradient[r / 2][a][2 * (r % 2) + e] += r == bit / 2 ? its_force * difference : T(0);
          }
        }
      }
    }
  }

  // gradient += sum_j B_ij x_i
  template <int kAccumulators>
  __device__ __forceinline__ void finish(const BackwardJob<T>& job, const TilePairs<kM>& pairs, int first,
                                         T (&gradient)[kM][kAccumulators][4]) const {
#pragma unroll
    for (int r = 0; r < 2 * kM; ++r) {
      T total = sum[r];
      total += __shfl_xor_sync(kWholeWarp, total, 1);
      total += __shfl_xor_sync(kWholeWarp, total, 2);
      const unsigned char* const x =
          job.own.features + min(pairs.row_of(r / 2, r % 2), pairs.rows - 1) * job.own.stride;
#pragma unroll
      for (int a = 0; a < kAccumulators; ++a) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int64_t byte = (int64_t{first} + Math::feature(a, e)) * static_cast<int64_t>(sizeof(E));
          if (byte < job.own.bytes) {
            gradient[r / 2][a][2 * (r % 2) + e] += total * widen<T>(load_global<E>(x + byte));
          }
        }
      }
    }
  }
};

}  // namespace mmcuda
