// What comes before the pairs, one thread or warp an item: aligned features, squared norms, the scalars, attributes as
// the kernels read them, and the number of positives of intervals.

#pragma once

#include "batch.cuh"

namespace mmcuda {

inline constexpr int kPrepareThreads = 256;

__device__ __forceinline__ int64_t global_thread() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int64_t all_threads() { return int64_t{gridDim.x} * blockDim.x; }

template <class T, class E>
__device__ __forceinline__ T widen(E x) {
  if constexpr (sizeof(E) == 2) {
    return to_float(x);
  } else {
    return x;
  }
}
template <class E, class T>
__device__ __forceinline__ E narrow(T x) {
  if constexpr (sizeof(E) == 2) {
    return from_float<E>(x);
  } else {
    return x;
  }
}

// Features [count, d] to rows of `stride` features, zeros behind the d-th.
template <class E>
__global__ void __launch_bounds__(kPrepareThreads)
    pack_kernel(const E* from, E* to, int64_t count, int64_t d, int64_t stride) {
  for (int64_t c = global_thread(); c < count * stride; c += all_threads()) {
    const int64_t column = c % stride;
    to[c] = column < d ? from[c / stride * d + column] : E{};
  }
}

// Squared norm of each item, one warp an item.
template <class E, class T>
__global__ void __launch_bounds__(kPrepareThreads) squares_kernel(Side row, Side column, int64_t items, T* squares) {
  const int64_t warps = all_threads() / 32;
  for (int64_t item = global_thread() / 32; item < items; item += warps) {
    const Side& side = item < row.count ? row : column;
    const unsigned char* const x = side.features + (item - side.first) * side.stride;
    T sum = 0;
    for (int64_t k = lane_id(); k * int64_t{sizeof(E)} < side.bytes; k += 32) {
      const T value = widen<T>(load_global<E>(x + k * sizeof(E)));
      sum += value * value;
    }
#pragma unroll
    for (int distance = 16; distance; distance /= 2) sum += __shfl_xor_sync(kWholeWarp, sum, distance);
    if (lane_id() == 0) squares[item] = sum;
  }
}

// ---- the scalars, by one block

template <class T>
struct DeviceScalarsJob {
  const T* squares;  // per item
  int64_t rows, columns;
  int self;
  const void* temperature;  // one number
  int double_temperature;   // a double
  const T* grad_losses;     // [gradients] backward with H in 16 bits, else null
  int64_t gradients;
  double terms;  // no value of H is larger than this times the largest |grad_loss| / temperature
  DeviceScalars* scalars;
};

__device__ __forceinline__ bool finite(float x) { return fabsf(x) <= 3.402823466e38f; }  // false for NaN
__device__ __forceinline__ bool finite(double x) { return fabs(x) <= 1.7976931348623157e308; }

// The largest value of any thread, for all threads.
template <class T>
__device__ __forceinline__ T block_maximum(T* shared, T mine) {
  const int thread = static_cast<int>(threadIdx.x);
  shared[thread] = mine;
  for (int half = kPrepareThreads / 2; half; half /= 2) {
    __syncthreads();
    if (thread < half) shared[thread] = shared[thread] > shared[thread + half] ? shared[thread] : shared[thread + half];
  }
  __syncthreads();
  const T result = shared[0];
  __syncthreads();
  return result;
}

template <class T>
__global__ void __launch_bounds__(kPrepareThreads)
    device_scalars_kernel(const __grid_constant__ DeviceScalarsJob<T> job) {
  MMCUDA_DYNAMIC_SHARED(shared);
  T* const values = reinterpret_cast<T*>(shared);  // [kPrepareThreads]
  T of_rows = 0, of_columns = 0, gradient = 0;     // largest finite squares, and incoming gradient
  T bad_rows = 0, bad_columns = 0;                 // 1 where a square is not finite
  const auto visit = [](T square, T& largest, T& bad) {
    if (!finite(square)) {
      bad = 1;
    } else if (square > largest) {
      largest = square;
    }
  };
  for (int64_t i = threadIdx.x; i < job.rows; i += kPrepareThreads) visit(job.squares[i], of_rows, bad_rows);
  for (int64_t j = threadIdx.x; !job.self && j < job.columns; j += kPrepareThreads) {
    visit(job.squares[job.rows + j], of_columns, bad_columns);
  }
  for (int64_t a = threadIdx.x; job.grad_losses && a < job.gradients; a += kPrepareThreads) {
    const T g = job.grad_losses[a] < 0 ? -job.grad_losses[a] : job.grad_losses[a];
    if (finite(g) && g > gradient) gradient = g;
  }
  of_rows = block_maximum(values, of_rows);
  bad_rows = block_maximum(values, bad_rows);
  of_columns = job.self ? of_rows : block_maximum(values, of_columns);
  bad_columns = job.self ? bad_rows : block_maximum(values, bad_columns);
  gradient = block_maximum(values, gradient);
  if (threadIdx.x != 0) return;

  DeviceScalars& scalars = *job.scalars;
  scalars.temperature = !job.temperature         ? 1
                        : job.double_temperature ? *static_cast<const double*>(job.temperature)
                                                 : *static_cast<const float*>(job.temperature);
  scalars.scale = 1.4426950408889634 / scalars.temperature;
  scalars.shift = sqrt(double(of_rows)) * sqrt(double(of_columns));  // Cauchy and Schwarz
  scalars.rows_finite = bad_rows == 0;
  scalars.columns_finite = bad_columns == 0;
  scalars.constant_shift = 2 * scalars.shift * scalars.scale < kMaxExponentRange;
  // A temperature that is none makes every loss NaN, as logits that overflow do.
  scalars.overflow = !(scalars.shift * scalars.scale <= -double(lowest<T>()) && scalars.temperature > 0);
  const double bound = gradient * job.terms / scalars.temperature;
  scalars.gradient_unit = bound > 0 && bound < 1e300 ? exp2(13 - ceil(log2(bound))) : 1;
}

// Whether the loss of an item is NaN because features are, or because logits overflow.
template <class T>
__device__ __forceinline__ bool nonfinite(const DeviceScalars& scalars, const T* squares, int64_t rows, int64_t item) {
  return scalars.overflow || !(item < rows ? scalars.columns_finite : scalars.rows_finite) || !finite(squares[item]);
}
// .. or its gradient, which is NaN, too, where an anchor on the other side has a NaN loss.
template <class T>
__device__ __forceinline__ bool gradient_nonfinite(const DeviceScalars& scalars, const T* squares, int64_t rows,
                                                   int64_t item, bool symmetric) {
  return nonfinite(scalars, squares, rows, item) ||
         !(item < rows ? scalars.rows_finite || !symmetric : bool(scalars.columns_finite));
}

// ---- attributes

// Values to T and what T cannot hold of them.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads)
    split_values_kernel(const double* values, T* value, T* value_lo, int64_t items) {
  for (int64_t i = global_thread(); i < items; i += all_threads()) {
    value[i] = static_cast<T>(values[i]);
    value_lo[i] = static_cast<T>(values[i] - value[i]);
  }
}

// Items to rows or columns of the mask: views are adjacent; rows that are columns read it as these.
template <class T>  // once for each T that uses it
__global__ void __launch_bounds__(kPrepareThreads)
    mask_index_kernel(int32_t* index, int64_t rows, int64_t items, int64_t row_views, int64_t column_views,
                      int64_t first_column) {
  for (int64_t i = global_thread(); i < items; i += all_threads()) {
    index[i] = static_cast<int32_t>(i < rows ? (i + first_column) / row_views : (i - rows) / column_views);
  }
}

// ---- n_ki of intervals: how many items of the other side are in the interval, from their number below each place of
// the order. Histograms are [sets, sides, bins]: bin r + 1 counts place r, and the running sum makes it "up to r".

struct IntervalJob {
  const int32_t* intervals[kMostSets];  // each [3, items]: order, begin, end
  int target[kMostSets];                // row of positive_counts
  int64_t rows, items, anchors;
  int self;
  int anchor_offset;  // column of row 0 that is row 0 itself; -1: none
  int64_t bins;       // items + 1
  int* histograms;
  double* positive_counts;  // [K, anchors]
};

// Places are below the number of items; whatever else comes must not leave the array.
__device__ __forceinline__ int64_t bin_of(int32_t order, int64_t items) {
  return order < 0 ? 0 : order >= items ? items - 1 : order;
}

template <class T>
__global__ void __launch_bounds__(kPrepareThreads) clear_kernel(T* values, int64_t count) {
  for (int64_t c = global_thread(); c < count; c += all_threads()) values[c] = 0;
}

template <int kSides>
__global__ void __launch_bounds__(kPrepareThreads) histogram_kernel(const __grid_constant__ IntervalJob job) {
  int* const histograms = job.histograms + blockIdx.y * kSides * job.bins;
  const int32_t* const order = job.intervals[blockIdx.y];
  for (int64_t i = global_thread(); i < job.items; i += all_threads()) {
    const int side = kSides == 2 && i >= job.rows ? 1 : 0;
    atomicAdd(histograms + side * job.bins + bin_of(order[i], job.items) + 1, 1);
  }
}

// Running sums, a block for each histogram, a stretch for each thread.
template <int kSides>
__global__ void __launch_bounds__(kPrepareThreads) scan_kernel(const __grid_constant__ IntervalJob job) {
  MMCUDA_DYNAMIC_SHARED(shared);
  int* const sums = reinterpret_cast<int*>(shared);  // [kPrepareThreads]
  int* const bins = job.histograms + blockIdx.x * job.bins;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t stretch = (job.bins + kPrepareThreads - 1) / kPrepareThreads;
  const int64_t begin = min(thread * stretch, job.bins), end = min(begin + stretch, job.bins);
  int sum = 0;
  for (int64_t b = begin; b < end; ++b) sum += bins[b];
  sums[thread] = sum;
  for (int distance = 1; distance < kPrepareThreads; distance *= 2) {
    __syncthreads();
    const int before = thread >= distance ? sums[thread - distance] : 0;
    __syncthreads();
    sums[thread] += before;
  }
  int running = sums[thread] - sum;
  for (int64_t b = begin; b < end; ++b) {
    running += bins[b];
    bins[b] = running;
  }
}

template <int kSides>
__global__ void __launch_bounds__(kPrepareThreads) count_intervals_kernel(const __grid_constant__ IntervalJob job) {
  const int32_t* const begin = job.intervals[blockIdx.y] + job.items;
  const int32_t* const end = begin + job.items;
  for (int64_t i = global_thread(); i < job.anchors; i += all_threads()) {
    const int other = kSides == 2 && i < job.rows ? 1 : 0;
    const int* const below = job.histograms + (blockIdx.y * kSides + other) * job.bins;
    const int count = below[bin_of(end[i], job.items) + 1] - below[bin_of(begin[i], job.items)];
    // An item's own order is in its interval.
    const int64_t j = i - job.rows - job.anchor_offset;
    const bool itself = job.anchor_offset >= 0 && (i < job.rows || (j >= 0 && j < job.rows));
    job.positive_counts[job.target[blockIdx.y] * job.anchors + i] = count - (itself ? 1 : 0);
  }
}

}  // namespace mmcuda
