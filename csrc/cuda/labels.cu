// Sorted label values to rank intervals, one thread a sample. See ../contrastive.h.

#include "labels.h"
#include "mma.cuh"

namespace mmcuda {
namespace {

constexpr int kLabelThreads = 256;

__device__ __forceinline__ bool is_missing(int64_t value) { return value == -1; }
__device__ __forceinline__ bool is_missing(double value) { return !(fabs(value) <= 1.7976931348623157e308); }

// Whether values a <= b are positives of each other. Both ends of an interval are decided by this, so that the relation
// is symmetric. Equality is compared as such: a difference of integers might overflow.
template <class V>
__device__ __forceinline__ bool near(V a, V b, V tolerance) {
  return a == b || (tolerance > 0 && b - a <= tolerance);
}

// sorted [samples] values, order [samples] whose they are -> ranks [3, samples * views]: rank, first, last. The rank is
// the place in the order. A missing value is near no other, wherever it was sorted to.
template <class V>
__global__ void __launch_bounds__(kLabelThreads)
    intervals_kernel(const V* sorted, const int64_t* order, int64_t samples, int64_t views, V tolerance,
                     int32_t* ranks) {
  const int64_t rank = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (rank >= samples) return;
  const V value = sorted[rank];
  int64_t first = rank, last = rank;
  if (!is_missing(value)) {
    for (int64_t below = -1; first - below > 1;) {  // sorted[below] is not near, sorted[first] is
      const int64_t middle = (below + first) / 2;
      (near(sorted[middle], value, tolerance) ? first : below) = middle;
    }
    for (int64_t above = samples; above - last > 1;) {
      const int64_t middle = (last + above) / 2;
      (near(value, sorted[middle], tolerance) ? last : above) = middle;
    }
  }
  const int64_t items = samples * views;
  for (int64_t item = order[rank] * views; item < (order[rank] + 1) * views; ++item) {
    ranks[item] = static_cast<int32_t>(rank);
    ranks[items + item] = static_cast<int32_t>(first);
    ranks[2 * items + item] = static_cast<int32_t>(last);
  }
}

}  // namespace

template <class V>
const char* label_intervals(const V* sorted, const int64_t* order, int64_t samples, int64_t views, V tolerance,
                            int32_t* ranks, void* stream) {
  const auto blocks = static_cast<unsigned>((samples + kLabelThreads - 1) / kLabelThreads);
  return launch<intervals_kernel<V>>(dim3(blocks), kLabelThreads, 0, stream, sorted, order, samples, views, tolerance,
                                     ranks);
}

template const char* label_intervals(const int64_t*, const int64_t*, int64_t, int64_t, int64_t, int32_t*, void*);
template const char* label_intervals(const double*, const int64_t*, int64_t, int64_t, double, int32_t*, void*);

}  // namespace mmcuda
