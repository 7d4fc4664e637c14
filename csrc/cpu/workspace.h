// From an operator's tensors to the Batch that the kernels read: checks, padding, packing, attributes per item.

#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "../arguments.h"
#include "arena.h"
#include "instruction_set.h"
#include "schedule.h"

namespace mmcuda {

inline constexpr int64_t kGrain = 1 << 15;  // elements to copy for which another thread pays
inline constexpr double kLog2E = 1.4426950408889634;

// Block pairs that the operator visits.
inline int64_t count_block_pairs(const Features& features) {
  const int64_t rows = (features.n + kBlock - 1) / kBlock, columns = (features.m + kBlock - 1) / kBlock;
  return features.self() ? rows * (rows + 1) / 2 : rows * columns;
}

// The features, used where they lie or copied with padding, and the attributes per item. T is the dtype of the
// computation.
template <class T>
class Workspace {
 public:
  using Index = typename IndexOf<T>::type;

  const Kernels<T>& kernel;  // one instruction set from packing to the last block pair
  Batch<T> batch{};
  double bound = 0;  // no dot product is larger, NaN and infinite features aside

  Workspace(const Features& features, const Kernels<T>& kernels) : kernel(kernels), features_(features) {
    batch.rows = features.n;
    batch.columns = features.m;
    batch.column_begin = features.self() ? 0 : round_up(features.n, kBlock);
    batch.items = batch.column_begin + round_up(features.m, kBlock);
    batch.anchor_offset = features.anchor_offset.value_or(-1);
    batch.d = features.d;
    batch.dp = round_up(features.d, kernel.pad);
    blocks_.resize(batch.items / kBlock);
  }

  // Padded item of item i of the operator.
  int64_t padded(int64_t i) const { return i < features_.n ? i : batch.column_begin + i - features_.n; }

  template <class V = T>
  V* per_item(int64_t arrays, V fill = 0) {
    const int64_t count = arrays * batch.items;
    V* data = allocate<V>(count);
    parallel_for(count, kGrain, [&](int64_t begin, int64_t end) { std::fill(data + begin, data + end, fill); });
    return data;
  }

  void pack_features(bool panels = true) {
    const int64_t elements = batch.items * batch.dp;
    batch.blocks = blocks_.data();
    batch.panels = panels ? allocate<char>(elements * kernel.element_size) : nullptr;
    if (kernel.pairs) batch.pairs = allocate<char>(elements * kernel.element_size);
    batch.squares = allocate<T>(batch.items);
    pack(features_.anchors, features_.n, 0);
    if (features_.keys) pack(*features_.keys, features_.m, batch.column_begin / kBlock);
    rows_finite_ = all_finite(0, features_.n);
    columns_finite_ = all_finite(batch.column_begin, features_.m);
    // Cauchy and Schwarz
    bound = std::sqrt(largest_square(0, features_.n)) * std::sqrt(largest_square(batch.column_begin, features_.m));
  }

  // Whether the losses and gradients of a padded item are NaN because features are, or because logits overflow.
  bool nonfinite(int64_t item) const {
    const bool row = item < features_.n;
    return !(row ? columns_finite_ : rows_finite_) || !finite(item) || bound * batch.scale > kMost;
  }
  bool all_nonfinite() const { return features_.self() && nonfinite(0); }
  // The gradient of an item is NaN, too, where an anchor on the other side has a NaN loss.
  bool gradient_nonfinite(int64_t item) const {
    const bool row = item < features_.n;
    return nonfinite(item) || !(row ? rows_finite_ || !batch.symmetric : columns_finite_);
  }

  void set_temperature(double temperature) {
    batch.scale = static_cast<T>(kLog2E / temperature);
    batch.constant_shift = 2 * bound * batch.scale < kMaxExponentRange;
  }

  void expand_labels(const Attributes& attributes) {
    sets_.resize(attributes.count());
    for (int64_t k = 0; k < attributes.order_intervals.size(0); ++k) expand(attributes, k);
    if (attributes.mask) expand_mask(*attributes.mask);
    batch.sets = attributes.count();
    batch.set = sets_.data();
  }

  // n_ki of the first `anchors` items, [K, anchors].
  void count_positives(const Attributes& attributes, int64_t anchors, double* positive_counts) {
    std::vector<double> counts;
    for (int64_t k = 0; k < batch.sets; ++k, positive_counts += anchors) {
      if (sets_[k].relation == Relation::kInterval) {
        counts = count_intervals(attributes.intervals(k));
        std::copy_n(counts.begin(), anchors, positive_counts);
      } else {
        counts.assign(batch.items, 0);
        for_each_block_pair([&](int64_t i, int64_t j, int64_t) { kernel.count(batch, k, i, j, counts.data()); });
        for (int64_t i = 0; i < anchors; ++i) positive_counts[i] = counts[padded(i)];
      }
    }
  }

  // A new tensor like `like` [.., D] for the gradient of the items from `first_block` on, to be accumulated in
  // gradient_blocks(): in the tensor itself where its blocks serve as they are, else beside it. Empty unless wanted.
  Tensor start_gradient(bool wanted, const Tensor& like, int64_t first_block) {
    if (!wanted) return empty_cpu({0, batch.d}, like.scalar_type());
    Tensor result = empty_cpu(like.sizes(), like.scalar_type());
    const int64_t count = like.numel() / batch.d, blocks = blocks_of(count), size = kBlock * batch.dp;
    auto* data = static_cast<char*>(result.mutable_data_ptr());
    gradient_.resize(blocks_.size());
    for (int64_t b = 0; b < blocks; ++b) {
      const bool serves = in_place(result, sizeof(T), count, b);
      gradient_[first_block + b] = serves ? reinterpret_cast<T*>(data) + b * size : allocate<T>(size);
    }
    parallel_for(blocks, kGrain / size + 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) std::fill_n(gradient_[first_block + b], size, T(0));
    });
    return result;
  }

  T* const* gradient_blocks() const { return gradient_.data(); }

  // Finishes each row of such a gradient: finish(i, row [D]), i counted from the first. NaN where it is nonfinite.
  template <class Finish>
  void finish_gradient(Tensor& result, int64_t first_block, const Finish& finish) const {
    const bool half = result.scalar_type() == ScalarType::BFloat16;
    void* data = result.mutable_data_ptr();
    const int64_t d = batch.d;
    parallel_for(result.numel() / d, kGrain / d + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        T* row = gradient_[first_block + i / kBlock] + i % kBlock * batch.dp;
        finish(i, row);
        if (gradient_nonfinite(first_block * kBlock + i)) std::fill_n(row, d, std::numeric_limits<T>::quiet_NaN());
        T* out = static_cast<T*>(data) + i * d;
        if (half) {
          std::transform(row, row + d, static_cast<uint16_t*>(data) + i * d, [](T g) { return to_bfloat16(g); });
        } else if (row != out) {
          std::copy_n(row, d, out);
        }
      }
    });
  }

  // Calls pair(I, J, p) for every block pair, in parallel; p counts them.
  template <class Pair>
  void for_each_block_pair(const Pair& pair) const {
    const int64_t rows = blocks_of(features_.n), columns = blocks_of(features_.m);
    (features_.self() ? BlockSchedule::of_self(rows) : BlockSchedule::of_cross(rows, columns)).run(pair);
  }

 private:
  static uint16_t to_bfloat16(T value) {  // rounds to nearest even
    const auto bits = __builtin_bit_cast(uint32_t, static_cast<float>(value));
    return static_cast<uint16_t>(value == value ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0);
  }

  static constexpr double kMost = std::numeric_limits<T>::max();

  const Features& features_;
  Arena arena_;
  std::vector<const void*> blocks_;  // of features
  std::vector<T*> gradient_;         // of gradients
  std::vector<CpuRelation<T>> sets_;
  bool rows_finite_, columns_finite_;

  static int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
  static int64_t blocks_of(int64_t items) { return round_up(items, kBlock) / kBlock; }

  template <class V>
  V* allocate(int64_t count) {
    return static_cast<V*>(arena_.allocate(count * sizeof(V)));
  }

  // Whether a block of `tensor` [count, D] can serve as it is: it is full, and without padding or another dtype.
  bool in_place(const Tensor& tensor, int64_t element_size, int64_t count, int64_t block) const {
    return batch.d == batch.dp && static_cast<int64_t>(tensor.element_size()) == element_size &&
           (block + 1) * kBlock <= count;
  }

  void pack(const Tensor& source, int64_t count, int64_t first_block) {
    const auto* data = static_cast<const char*>(source.const_data_ptr());
    const int64_t bytes = kBlock * batch.dp * kernel.element_size;
    for (int64_t b = 0; b < blocks_of(count); ++b) {
      const bool serves = in_place(source, kernel.element_size, count, b);
      blocks_[first_block + b] = serves ? data + b * bytes : allocate<char>(bytes);
    }
    parallel_for(blocks_of(count), kGrain / (kBlock * batch.dp) + 1, [&](int64_t begin, int64_t end) {
      kernel.pack(batch, data, count, first_block, first_block + begin, first_block + end);
    });
  }

  bool finite(int64_t item) const { return batch.squares[item] <= kMost; }  // false for NaN, too

  bool all_finite(int64_t begin, int64_t count) const {
    for (int64_t i = begin; i < begin + count; ++i) {
      if (!finite(i)) return false;
    }
    return true;
  }

  double largest_square(int64_t begin, int64_t count) const {
    double largest = 0;
    for (int64_t i = begin; i < begin + count; ++i) {
      if (finite(i)) largest = std::max<double>(largest, batch.squares[i]);
    }
    return largest;
  }

  // Of each item how many of the other side are in its interval, from their running count in the order of values.
  std::vector<double> count_intervals(const int32_t* order) const {
    const int64_t n = features_.n, items = features_.items();
    const int32_t* first = order + items;
    const int32_t* last = order + 2 * items;
    const int64_t highest = *std::max_element(order, order + items);
    std::vector<double> counts(items);
    const auto count_side = [&](int64_t begin, int64_t end, int64_t other_begin, int64_t other_end) {
      std::vector<int64_t> below(highest + 2, 0);  // items of the other side below place r
      for (int64_t j = other_begin; j < other_end; ++j) ++below[order[j] + 1];
      for (int64_t r = 0; r <= highest; ++r) below[r + 1] += below[r];
      for (int64_t i = begin; i < end; ++i) {
        counts[i] = static_cast<double>(below[std::min<int64_t>(last[i], highest) + 1] - below[first[i]]);
      }
    };
    if (features_.self()) {
      count_side(0, items, 0, items);
    } else {
      count_side(0, n, n, items);
      count_side(n, items, 0, n);
    }
    for (int64_t i = 0; features_.anchor_offset && i < n; ++i) {  // an item is in its own interval
      counts[i] -= 1;
      if (!features_.self()) counts[n + *features_.anchor_offset + i] -= 1;
    }
    return counts;
  }

  template <class V, class Source>
  V* spread(const Source* source, V fill) {
    V* data = per_item<V>(1, fill);
    for (int64_t i = 0; i < features_.items(); ++i) data[padded(i)] = static_cast<V>(source[i]);
    return data;
  }

  void expand(const Attributes& attributes, int64_t k) {
    const int64_t items = features_.items();
    const int32_t* intervals = attributes.intervals(k);
    for (int64_t i = 0; i < items; ++i) {
      const int32_t order = intervals[i], first = intervals[items + i], last = intervals[2 * items + i];
      STD_TORCH_CHECK(0 <= first && first <= order && order <= last, "intervals must be those of label_intervals, got ",
                      first, " <= ", order, " <= ", last);
    }
    CpuRelation<T>& set = sets_[k];
    set.relation = Relation::kInterval;
    set.order = spread<Index>(intervals, -1);
    set.first = spread<Index>(intervals + items, 0);
    set.last = spread<Index>(intervals + 2 * items, -1);  // padding is in no interval, and nothing is in its
    if (const double* values = attributes.values(k)) {
      set.relation = Relation::kGaussian;
      std::vector<double> value_lo(values, values + items);  // what T cannot hold of them
      for (double& value : value_lo) value -= static_cast<T>(value);
      set.value = spread<T>(values, 0);
      set.value_lo = spread<T>(value_lo.data(), 0);
    }
    if (const int32_t* words = attributes.bits(k)) {
      set.relation = Relation::kOverlap;
      set.words = static_cast<int>(attributes.words[k]);
      auto* bits = per_item<Index>(2 * int64_t{set.words});
      for (int64_t w = 0; w < 2 * set.words; ++w) {
        for (int64_t i = 0; i < items; ++i) {
          bits[w * batch.items + padded(i)] = static_cast<Index>(static_cast<uint32_t>(words[w * items + i]));
        }
      }
      set.bits = bits;
    }
  }

  void expand_mask(const Tensor& mask) {
    CpuRelation<T>& set = sets_.back();
    set.relation = Relation::kMask;
    set.mask = mask.const_data_ptr<T>();
    set.mask_columns = mask.size(1);
    auto* index = per_item<Index>(1);
    const int64_t column_views = features_.m / mask.size(1);
    // Rows that are columns read the mask as these.
    const int64_t row_views = features_.anchor_offset ? column_views : features_.n / mask.size(0);
    for (int64_t i = 0; i < features_.n; ++i) {
      index[i] = static_cast<Index>((i + features_.anchor_offset.value_or(0)) / row_views);
    }
    for (int64_t j = 0; j < features_.m; ++j) {
      index[batch.column_begin + j] = static_cast<Index>(j / column_views);
    }
    set.mask_index = index;
  }
};

// Calls run(kernels) with those for features of this dtype.
template <class Run>
void dispatch(ScalarType dtype, const Run& run) {
  if (dtype == ScalarType::Float) {
    run(instruction_set().fp32);
  } else if (dtype == ScalarType::BFloat16) {
    run(instruction_set().bf16);
  } else {
    STD_TORCH_CHECK(dtype == ScalarType::Double, "features must be float32, float64 or bfloat16");
    run(instruction_set().fp64);
  }
}

}  // namespace mmcuda
