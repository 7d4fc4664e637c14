// What both losses share: the workspace, sides, attributes and scalars of a call, and the passes over its pairs.

#pragma once

#include <algorithm>
#include <cstdint>

#include "cut.h"
#include "launch.h"
#include "reduce.cuh"
#include "tiles_launch.h"

namespace mmcuda {

// The kernels of one call. Without a stream of launches it only measures: the same code takes the same workspace.
class Call {
 public:
  Call(const Inputs& inputs, bool measure, const char* error)
      : workspace_(static_cast<char*>(inputs.workspace)), stream_(inputs.stream), measure_(measure), error_(error) {}

  template <class V>
  V* take(int64_t count) {
    V* const array = measure_ ? nullptr : reinterpret_cast<V*>(workspace_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(V) + 255) / 256 * 256;
    return array;
  }

  template <auto kKernel, class... Args>
  void run(dim3 grid, unsigned threads, size_t shared, const Args&... args) {
    launch_if([&] { return launch<kKernel>(grid, threads, shared, stream_, args...); });
  }
  // One thread each for `count` of something.
  template <auto kKernel, class... Args>
  void run_for(int64_t count, const Args&... args) {
    run<kKernel>(blocks_for(count), kPrepareThreads, 0, args...);
  }
  template <class Launch>
  void launch_if(const Launch& launch) {
    if (!measure_ && !error_) error_ = launch();
  }

  void* stream() const { return stream_; }
  size_t used() const { return used_; }
  const char* error() const { return error_; }

 private:
  char* workspace_;
  void* stream_;
  bool measure_;
  size_t used_ = 0;
  const char* error_;
};

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
inline int tiles_of(int64_t count, int tile) { return static_cast<int>((count + tile - 1) / tile); }

// What both losses share: sides, attributes, scalars, the passes over pairs.
template <class Math>
class Pass {
 public:
  using T = typename Math::Accumulator;
  using E = typename Math::Element;

  Pass(Call& call, const Inputs& inputs, int64_t anchors)
      : call_(call), in_(inputs), self_(!inputs.columns), items_(inputs.items()), anchors_(anchors) {
    row_ = side(in_.rows, in_.n, 0);
    column_ = self_ ? row_ : side(in_.columns, in_.m, in_.n);
    panels_ = static_cast<int>((row_.bytes + kPanelBytes - 1) / kPanelBytes);
    squares_ = call_.template take<T>(items_);
    scalars_ = call_.template take<DeviceScalars>(1);
    call_.launch_if([&] { return Tiles<Math>::squares(row_, column_, items_, squares_, call_.stream()); });
    encode_labels();
    macro_tiles_ = forward_macro_tiles(tiles_of(in_.n, kTile), tiles_of(in_.m, kTile), self_, multiprocessors());
  }

  const T* squares() const { return squares_; }
  const DeviceScalars* scalars() const { return scalars_; }
  const DeviceRelation<T>* sets() const { return set_; }
  int64_t items() const { return items_; }
  int slots() const { return std::max(row_slots(), column_slots()); }
  int row_slots() const { return self_ ? macro_tiles_.rows + 1 : macro_tiles_.columns; }
  int column_slots() const { return self_ ? macro_tiles_.rows + 1 : macro_tiles_.rows; }
  int distance() const { return in_.anchor_offset < 0 ? kNoSelf : static_cast<int>(in_.anchor_offset); }

  // `terms`: no value of H is larger than this times the largest incoming gradient over the temperature.
  void make_scalars(const void* temperature, bool double_temperature, const void* grad_losses, int64_t gradients,
                    double terms) {
    DeviceScalarsJob<T> job{};
    job.squares = squares_;
    job.rows = in_.n;
    job.columns = in_.m;
    job.self = self_;
    job.temperature = temperature;
    job.double_temperature = double_temperature;
    job.grad_losses = std::is_same_v<E, half16> ? static_cast<const T*>(grad_losses) : nullptr;
    job.gradients = gradients;
    job.terms = terms;
    job.scalars = scalars_;
    call_.template run<device_scalars_kernel<T>>(1, kPrepareThreads, kPrepareThreads * sizeof(T), job);
  }

  ForwardJob<T> forward_job() const {
    ForwardJob<T> job{};
    job.scalars = scalars_;
    job.row = row_;
    job.column = column_;
    job.items = items_;
    job.anchors = anchors_;
    job.self = self_;
    job.serves_columns = self_ || anchors_ > in_.n;
    job.distance = distance();
    job.panels = panels_;
    job.row_tiles = tiles_of(in_.n, kTile);
    job.column_tiles = tiles_of(in_.m, kTile);
    job.row_macro_tiles = macro_tiles_.rows;
    job.column_macro_tiles = macro_tiles_.columns;
    job.sets = in_.sets;
    std::copy_n(set_, in_.sets, job.set);
    job.slots = slots();
    return job;
  }

  // Sums of `terms` terms, a few at a time, into job.partial.
  void forward(Kind kind, ForwardJob<T> job, const Term* term, int terms) {
    for (int first = 0; first < terms; first += kMaxTerms) {
      job.terms = std::min(terms - first, kMaxTerms);
      std::copy_n(term + first, job.terms, job.term);
      // The panels of the rows stay where two blocks fit a multiprocessor with them, as those without always do where
      // it has 164 KB. Where it has 100 KB there is one block in any case.
      constexpr int kSmallest = 80 * 1024, kSums = 12 * 1024;
      const int most = std::max(kSmallest, in_.limits.shared_memory / 2 - kSharedOfSystem);
      const int of_tile = job.terms * kTile * static_cast<int>(sizeof(T));
      job.strip = std::clamp((kSums - 4 * of_tile) / (2 * of_tile), 1, 8);
      job.resident = ForwardShared<Tile>(job.panels, true, job.terms, job.strip).size <= most;
      call_.launch_if([&] { return Tiles<Math>::forward(kind, job, call_.stream()); });
      job.partial += int64_t{job.terms} * job.slots * anchors_;
    }
  }

  // positive_counts [K, A]
  void count_positives(double* positive_counts) {
    count_intervals(positive_counts);
    Term term[kMostSets];
    int target[kMostSets], terms = 0;
    for (int k = 0; k < in_.sets; ++k) {
      if (set_[k].relation == Relation::kInterval) continue;
      term[terms] = {Function::kCount, Weight::kRelated, static_cast<uint8_t>(k), 0};
      target[terms++] = k;
    }
    if (!terms) return;
    ForwardJob<T> job = forward_job();
    job.panels = 0;
    job.partial = call_.template take<T>(int64_t{terms} * slots() * anchors_);
    forward(Kind::kAny, job, term, terms);
    LossJob<T> sums{};
    sums.rows = in_.n;
    sums.anchors = anchors_;
    sums.partial = job.partial;
    sums.slots = slots();
    sums.row_slots = row_slots();
    sums.column_slots = column_slots();
    for (int t = 0; t < terms; ++t) {
      call_.template run_for<positive_counts_kernel<T>>(anchors_, sums, t, positive_counts + target[t] * anchors_);
    }
  }

  // Gradients of the rows, and of the columns in cross-contrast, where wanted.
  void backward(Kind kind, BackwardJob<T> job, void* grad_rows, void* grad_columns) {
    job.scalars = scalars_;
    job.items = items_;
    job.self = self_;
    job.panels = panels_;
    job.sets = in_.sets;
    std::copy_n(set_, in_.sets, job.set);
    job.d = in_.d;
    job.partial_stride = round_up(in_.d, 4);
    job.squares = squares_;
    job.rows = in_.n;
    gradient(kind, job, row_, column_, false, grad_rows);
    if (!self_) gradient(kind, job, column_, row_, true, grad_columns);
  }

 private:
  using Tile = ForwardTile<Math, false>;  // the wide one is as large, and needs less shared memory
  static constexpr int kTile = Tile::kTile;
  // A split writes and reads 8 N D bytes of partial gradients beside 4 N M D flops of all; the tensor cores do some 170
  // flops while memory moves a byte (A100, H100), of TF32 half as many, and three for one in exact float32.
  static constexpr double kSplitTraffic = 2 * 170. / (sizeof(E) == 2 ? 1 : 2 * Math::kProducts);

  Call& call_;
  const Inputs& in_;
  bool self_;
  int64_t items_, anchors_;
  Side row_, column_;
  int panels_;
  T* squares_;
  DeviceScalars* scalars_;
  DeviceRelation<T> set_[kMostSets] = {};
  MacroTiles macro_tiles_;

  int multiprocessors() const { return std::max(in_.limits.multiprocessors, 1); }
  static bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % kChunkBytes == 0; }

  // Features as they are or, where a row would not begin at a multiple of 16 bytes, a copy.
  Side side(const void* features, int64_t count, int64_t first) {
    Side side{};
    side.count = static_cast<int>(count);
    side.first = static_cast<int>(first);
    const int64_t bytes = in_.d * static_cast<int64_t>(sizeof(E));
    side.bytes = side.stride = round_up(bytes, kChunkBytes);
    if (side.bytes == bytes && aligned(features)) {
      side.features = static_cast<const unsigned char*>(features);
    } else {
      const int64_t stride = side.stride / static_cast<int64_t>(sizeof(E));
      E* const packed = call_.template take<E>(count * stride);
      call_.launch_if([&] { return Tiles<Math>::pack(features, packed, count, in_.d, stride, call_.stream()); });
      side.features = reinterpret_cast<const unsigned char*>(packed);
    }
    return side;
  }

  void encode_labels() {
    for (int k = 0; k < in_.sets; ++k) {
      DeviceRelation<T>& set = set_[k];
      const LabelInput& labels = in_.labels[k];
      if (k == in_.sets - 1 && in_.mask) {
        set.relation = Relation::kMask;
        set.mask = static_cast<const T*>(in_.mask);
        set.mask_columns = in_.mask_columns;
        const int64_t column_views = in_.m / in_.mask_columns;
        const int64_t row_views = in_.anchor_offset < 0 ? in_.n / in_.mask_rows : column_views;
        auto* const index = call_.template take<int32_t>(items_);
        call_.template run_for<mask_index_kernel<T>>(items_, index, in_.n, items_, row_views, column_views,
                                                     std::max<int64_t>(in_.anchor_offset, 0));
        set.mask_index = index;
        continue;
      }
      set.relation = labels.values ? Relation::kGaussian : labels.bits ? Relation::kOverlap : Relation::kInterval;
      set.order = labels.intervals;
      set.first = labels.intervals + items_;
      set.last = labels.intervals + 2 * items_;
      set.bits = labels.bits;
      set.words = static_cast<int>(labels.words);
      if (labels.values) {
        auto* const value = call_.template take<T>(items_);
        auto* const value_lo = call_.template take<T>(items_);
        call_.template run_for<split_values_kernel<T>>(items_, labels.values, value, value_lo, items_);
        set.value = value;
        set.value_lo = value_lo;
      }
    }
  }

  void count_intervals(double* positive_counts) {
    IntervalJob job{};
    int sets = 0;
    for (int k = 0; k < in_.sets; ++k) {
      if (set_[k].relation != Relation::kInterval) continue;
      job.intervals[sets] = set_[k].order;
      job.target[sets++] = k;
    }
    if (!sets) return;
    const int sides = self_ ? 1 : 2;
    job.rows = in_.n;
    job.items = items_;
    job.anchors = anchors_;
    job.self = self_;
    job.anchor_offset = static_cast<int>(in_.anchor_offset);
    job.bins = items_ + 1;
    job.histograms = call_.template take<int>(int64_t{sets} * sides * job.bins);
    job.positive_counts = positive_counts;
    const auto count = [&]<int kSides>() {
      call_.template run_for<clear_kernel<int>>(sets * sides * job.bins, job.histograms, sets * sides * job.bins);
      const dim3 items(blocks_for(items_), sets);
      call_.template run<histogram_kernel<kSides>>(items, kPrepareThreads, 0, job);
      call_.template run<scan_kernel<kSides>>(sets * sides, kPrepareThreads, kPrepareThreads * sizeof(int), job);
      call_.template run<count_intervals_kernel<kSides>>(items, kPrepareThreads, 0, job);
    };
    self_ ? count.template operator()<1>() : count.template operator()<2>();
  }

  // The own side's gradient. A pass for one kind of shifts may be followed by that for the other; they share memory.
  void gradient(Kind kind, BackwardJob<T> job, const Side& own, const Side& other, bool swapped, void* result) {
    if (!result) return;
    job.own = own;
    job.other = other;
    job.swapped = swapped;
    job.distance = swapped && distance() != kNoSelf ? -distance() : distance();
    job.gradient = result;
    const auto run = [&](Kind pass, ShiftMode mode, int splits) {
      job.shift_mode = mode;
      job.tiles = tiles_of(other.count, Tiles<Math>::cut(pass, panels_, in_.limits.shared_memory).columns);
      call_.launch_if(
          [&] { return Tiles<Math>::backward(pass, job, splits, in_.limits.shared_memory, call_.stream()); });
    };
    const auto cut = Tiles<Math>::cut(kind, panels_, in_.limits.shared_memory);
    const int64_t blocks = int64_t{tiles_of(own.count, cut.rows)} * tiles_of(panels_, cut.panels);
    const int splits = backward_splits(blocks, tiles_of(other.count, std::max(cut.columns, 64)), cut.blocks,
                                       multiprocessors(), kSplitTraffic / static_cast<double>(other.count));
    if (splits > 1 || in_.d * sizeof(E) % kChunkBytes != 0 || !aligned(result)) {
      job.partial = call_.template take<T>(int64_t{splits} * own.count * job.partial_stride);
    }
    run(kind, kind == Kind::kInterval ? ShiftMode::kConstantShift : ShiftMode::kAlways, splits);
    if (kind == Kind::kInterval) run(Kind::kAny, ShiftMode::kOwnShifts, splits);
    if (job.partial) {
      call_.launch_if([&] { return Tiles<Math>::add_gradients(job, splits, call_.stream()); });
    }
  }
};

}  // namespace mmcuda
