// Label values to intervals of their order (see contrastive.h), by one sort per attribute.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "../arguments.h"

namespace mmcuda {
namespace {

bool is_missing(int64_t value) { return value == -1; }
bool is_missing(double value) { return !std::isfinite(value); }

// Writes order, first and last of one attribute, each [samples].
template <class T>
void order_values(const T* values, int64_t samples, T tolerance, int32_t* order, int32_t* first, int32_t* last) {
  std::vector<std::pair<T, int32_t>> known;  // value, sample
  known.reserve(samples);
  int32_t alone = static_cast<int32_t>(samples);  // missing samples take the places behind the known ones
  for (int64_t b = 0; b < samples; ++b) {
    if (is_missing(values[b])) {
      order[b] = first[b] = last[b] = --alone;
    } else {
      known.emplace_back(values[b], static_cast<int32_t>(b));
    }
  }
  std::sort(known.begin(), known.end());

  const auto count = static_cast<int32_t>(known.size());
  // Both ends are decided by the same comparison of the same difference, so the relation is symmetric. Equality is
  // compared as such: a difference of integers might overflow.
  const auto near = [&](int32_t low, int32_t high) {
    const T a = known[low].first, b = known[high].first;
    return a == b || (tolerance > 0 && b - a <= tolerance);
  };
  for (int32_t r = 0, low = 0; r < count; ++r) {
    while (!near(low, r)) ++low;
    order[known[r].second] = r;
    first[known[r].second] = low;
  }
  for (int32_t r = count - 1, high = count - 1; r >= 0; --r) {
    while (!near(r, high)) --high;
    last[known[r].second] = high;
  }
}

Tensor label_intervals_cpu(const std::vector<Tensor>& labels, const std::vector<double>& tolerances, int64_t views) {
  check_labels(labels, tolerances, views);
  const auto sets = static_cast<int64_t>(labels.size());
  const int64_t samples = labels[0].numel();
  Tensor intervals = empty_cpu({sets, 3, samples * views}, ScalarType::Int);
  auto* out = intervals.mutable_data_ptr<int32_t>();
  for (int64_t k = 0; k < sets; ++k) {
    const Tensor values = as_contiguous(labels[k]);
    // The values of the samples are written at the end of their place and spread to the views from the front.
    int32_t* order = out + 3 * (k + 1) * samples * views - 3 * samples;
    if (values.scalar_type() == ScalarType::Long) {
      order_values<int64_t>(values.const_data_ptr<int64_t>(), samples, 0, order, order + samples, order + 2 * samples);
    } else {
      order_values<double>(values.const_data_ptr<double>(), samples, tolerances[k], order, order + samples,
                           order + 2 * samples);
    }
    int32_t* item = out + 3 * k * samples * views;
    for (int64_t i = 0; i < 3 * samples; ++i) item = std::fill_n(item, views, int32_t{order[i]});
  }
  return intervals;
}

}  // namespace
}  // namespace mmcuda

STABLE_TORCH_LIBRARY_IMPL(mmcuda, CPU, m) { m.impl("label_intervals", TORCH_BOX(&mmcuda::label_intervals_cpu)); }
