// Sorted label values to intervals of their order, one thread a sample. See ../contrastive.h.

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

// sorted [samples] values, sample_of [samples] whose they are -> intervals [3, samples * views]: order, first, last.
// The order is the place among the sorted values. A missing value is near no other, wherever it was sorted to.
template <class V>
__global__ void __launch_bounds__(kLabelThreads)
    intervals_kernel(const V* sorted, const int64_t* sample_of, int64_t samples, int64_t views, V tolerance,
                     int32_t* intervals) {
  const int64_t order = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (order >= samples) return;
  const V value = sorted[order];
  int64_t first = order, last = order;
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
  for (int64_t item = sample_of[order] * views; item < (sample_of[order] + 1) * views; ++item) {
    intervals[item] = static_cast<int32_t>(order);
    intervals[items + item] = static_cast<int32_t>(first);
    intervals[2 * items + item] = static_cast<int32_t>(last);
  }
}

}  // namespace

template <class V>
const char* label_intervals(const V* sorted, const int64_t* sample_of, int64_t samples, int64_t views, V tolerance,
                            int32_t* intervals, void* stream) {
  const auto blocks = static_cast<unsigned>((samples + kLabelThreads - 1) / kLabelThreads);
  return launch<intervals_kernel<V>>(dim3(blocks), kLabelThreads, 0, stream, sorted, sample_of, samples, views,
                                     tolerance, intervals);
}

template const char* label_intervals(const int64_t*, const int64_t*, int64_t, int64_t, int64_t, int32_t*, void*);
template const char* label_intervals(const double*, const int64_t*, int64_t, int64_t, double, int32_t*, void*);

}  // namespace mmcuda
