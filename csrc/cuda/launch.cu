// Which kernels a loss needs, in which order, and what they pass on. See launch.h.

#include <algorithm>
#include <cmath>

#include "launch.h"
#include "reduce.cuh"
#include "tiles_launch.h"

namespace mmcuda {
namespace {

static_assert(kMostSets == kMaxSets);

// The kernels of one call. Without a stream of launches it only measures: the same code takes the same workspace.
class Call {
 public:
  Call(const Inputs& inputs, bool measure)
      : workspace_(static_cast<char*>(inputs.workspace)), stream_(inputs.stream), measure_(measure) {}

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
  const char* error_ = nullptr;
};

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
int tiles_of(int64_t count, int tile) { return static_cast<int>((count + tile - 1) / tile); }

// What both losses share: sides, label sets, plan, the passes over pairs.
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
    plan_ = call_.template take<Plan>(1);
    call_.launch_if([&] { return Tiles<Math>::squares(row_, column_, items_, squares_, call_.stream()); });
    encode_labels();
    cut_forward();
  }

  const T* squares() const { return squares_; }
  const Plan* plan() const { return plan_; }
  const RelationArrays<T>* sets() const { return set_; }
  int64_t items() const { return items_; }
  int slots() const { return std::max(row_slots(), column_slots()); }
  int row_slots() const { return self_ ? row_supers_ + 1 : column_supers_; }
  int column_slots() const { return self_ ? row_supers_ + 1 : row_supers_; }
  int distance() const { return in_.self_offset < 0 ? kNoSelf : static_cast<int>(in_.self_offset); }

  // `terms`: no value of H is larger than this times the largest incoming gradient over the temperature.
  void make_plan(const void* temperature, bool double_temperature, const void* grad_losses, int64_t gradients,
                 double terms) {
    PlanJob<T> job{};
    job.squares = squares_;
    job.rows = in_.n;
    job.columns = in_.m;
    job.self = self_;
    job.temperature = temperature;
    job.double_temperature = double_temperature;
    job.grad_losses = std::is_same_v<E, half16> ? static_cast<const T*>(grad_losses) : nullptr;
    job.gradients = gradients;
    job.terms = terms;
    job.plan = plan_;
    call_.template run<plan_kernel<T>>(1, kPrepareThreads, kPrepareThreads * sizeof(T), job);
  }

  ForwardJob<T> forward_job() const {
    ForwardJob<T> job{};
    job.plan = plan_;
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
    job.row_supers = row_supers_;
    job.column_supers = column_supers_;
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
      // Two blocks fit a multiprocessor with 164 KB; a block fits 99 KB in any case.
      constexpr int kHalf = 80 * 1024, kSums = 12 * 1024;
      const int of_tile = job.terms * kTile * static_cast<int>(sizeof(T));
      job.strip = std::clamp((kSums - 4 * of_tile) / (2 * of_tile), 1, 8);
      job.resident = ForwardShared<Tile>(job.panels, true, job.terms, job.strip).size <= kHalf;
      call_.launch_if([&] { return Tiles<Math>::forward(kind, job, call_.stream()); });
      job.partial += int64_t{job.terms} * job.slots * anchors_;
    }
  }

  // totals [K, A]
  void count_positives(double* totals) {
    count_intervals(totals);
    Term term[kMaxSets];
    int target[kMaxSets], terms = 0;
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
      call_.template run_for<totals_kernel<T>>(anchors_, sums, t, totals + target[t] * anchors_);
    }
  }

  // Gradients of the rows, and of the columns in cross-contrast, where wanted.
  void backward(Kind kind, BackwardJob<T> job, void* grad_rows, void* grad_columns) {
    job.plan = plan_;
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

  Call& call_;
  const Inputs& in_;
  bool self_;
  int64_t items_, anchors_;
  Side row_, column_;
  int panels_;
  T* squares_;
  Plan* plan_;
  RelationArrays<T> set_[kMaxSets] = {};
  int row_supers_, column_supers_;

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
      RelationArrays<T>& set = set_[k];
      const LabelInput& labels = in_.labels[k];
      if (k == in_.sets - 1 && in_.mask) {
        set.relation = Relation::kMask;
        set.mask = static_cast<const T*>(in_.mask);
        set.mask_columns = in_.mask_columns;
        const int64_t column_views = in_.m / in_.mask_columns;
        const int64_t row_views = in_.self_offset < 0 ? in_.n / in_.mask_rows : column_views;
        auto* const index = call_.template take<int32_t>(items_);
        call_.template run_for<mask_index_kernel<T>>(items_, index, in_.n, items_, row_views, column_views,
                                                     std::max<int64_t>(in_.self_offset, 0));
        set.mask_index = index;
        continue;
      }
      set.relation = labels.values ? Relation::kGaussian : labels.bits ? Relation::kOverlap : Relation::kInterval;
      set.rank = labels.ranks;
      set.begin = labels.ranks + items_;
      set.end = labels.ranks + 2 * items_;
      set.bits = labels.bits;
      set.words = static_cast<int>(labels.words);
      if (labels.values) {
        auto* const value = call_.template take<T>(items_);
        auto* const rest = call_.template take<T>(items_);
        call_.template run_for<split_values_kernel<T>>(items_, labels.values, value, rest, items_);
        set.value = value;
        set.rest = rest;
      }
    }
  }

  // About four super-blocks a multiprocessor, or one a tile: each item has as many slots as there are in a row.
  void cut_forward() {
    const int row_tiles = tiles_of(in_.n, kTile), column_tiles = tiles_of(in_.m, kTile);
    const double wanted = 4. * std::max(in_.multiprocessors, 1);
    const auto cut = [](int tiles, double supers) {  // evenly
      const int size = std::max(1, static_cast<int>(tiles / supers + 0.5));
      return (tiles + size - 1) / size;
    };
    if (self_) {
      row_supers_ = column_supers_ = cut(row_tiles, std::sqrt(2 * wanted));
    } else {
      row_supers_ = cut(row_tiles, std::sqrt(wanted));
      column_supers_ = cut(column_tiles, wanted / row_supers_);
      row_supers_ = cut(row_tiles, wanted / column_supers_);
    }
  }

  void count_intervals(double* totals) {
    IntervalJob job{};
    int sets = 0;
    for (int k = 0; k < in_.sets; ++k) {
      if (set_[k].relation != Relation::kInterval) continue;
      job.ranks[sets] = set_[k].rank;
      job.target[sets++] = k;
    }
    if (!sets) return;
    const int sides = self_ ? 1 : 2;
    job.rows = in_.n;
    job.items = items_;
    job.anchors = anchors_;
    job.self = self_;
    job.self_offset = static_cast<int>(in_.self_offset);
    job.bins = items_ + 1;
    job.histograms = call_.template take<int>(int64_t{sets} * sides * job.bins);
    job.totals = totals;
    const auto count = [&]<int kSides>() {
      call_.template run_for<clear_kernel<int>>(sets * sides * job.bins, job.histograms, sets * sides * job.bins);
      const dim3 items(blocks_for(items_), sets);
      call_.template run<histogram_kernel<kSides>>(items, kPrepareThreads, 0, job);
      call_.template run<scan_kernel<kSides>>(sets * sides, kPrepareThreads, kPrepareThreads * sizeof(int), job);
      call_.template run<count_intervals_kernel<kSides>>(items, kPrepareThreads, 0, job);
    };
    self_ ? count.template operator()<1>() : count.template operator()<2>();
  }

  // Splits of J such that blocks fill whole waves of the device, two blocks a multiprocessor.
  int splits_for(int64_t blocks, int64_t tiles) const {
    const int64_t wave = 2 * std::max(in_.multiprocessors, 1);
    int best = 1;
    double best_use = 0;
    for (int splits = 1; splits <= 16 && splits <= tiles; ++splits) {
      const int64_t all = blocks * splits;
      const double use = static_cast<double>(all) / static_cast<double>(round_up(all, wave));
      if (use > best_use + 0.05) {
        best = splits;
        best_use = use;
      }
    }
    return best;
  }

  // The own side's gradient. A pass for one kind of plan may be followed by that for the other; they share memory.
  void gradient(Kind kind, BackwardJob<T> job, const Side& own, const Side& other, bool swapped, void* result) {
    if (!result) return;
    job.own = own;
    job.other = other;
    job.swapped = swapped;
    job.distance = swapped && distance() != kNoSelf ? -distance() : distance();
    job.gradient = result;
    const auto run = [&](Kind pass, When when, int splits) {
      job.when = when;
      job.tiles = tiles_of(other.count, Tiles<Math>::cut(pass, panels_).columns);
      call_.launch_if([&] { return Tiles<Math>::backward(pass, job, splits, call_.stream()); });
    };
    const auto cut = Tiles<Math>::cut(kind, panels_);
    const int64_t blocks = int64_t{tiles_of(own.count, cut.rows)} * tiles_of(panels_, cut.panels);
    const int splits = splits_for(blocks, tiles_of(other.count, std::max(cut.columns, 64)));
    if (splits > 1 || in_.d * sizeof(E) % kChunkBytes != 0 || !aligned(result)) {
      job.partial = call_.template take<T>(int64_t{splits} * own.count * job.partial_stride);
    }
    run(kind, kind == Kind::kInterval ? When::kConstantShift : When::kAlways, splits);
    if (kind == Kind::kInterval) run(Kind::kAny, When::kOwnShifts, splits);
    if (job.partial) {
      call_.launch_if([&] { return Tiles<Math>::add_gradients(job, splits, call_.stream()); });
    }
  }
};

// ---- the contrastive losses

template <class Math>
class Contrastive : Pass<Math> {
 public:
  using T = typename Math::Accumulator;
  using Base = Pass<Math>;

  Contrastive(Call& call, const Inputs& inputs, const ContrastiveSettings& settings)
      : Base(call, inputs, settings.both_ways ? inputs.items() : inputs.n),
        call_(call),
        in_(inputs),
        settings_(settings),
        anchors_(settings.both_ways ? inputs.items() : inputs.n) {
    for (int k = 0; k < (settings.all ? 1 : in_.sets); ++k) {
      add_sum(settings.all ? Weight::kEvery : Weight::kUnrelated, k);
    }
    for (int k = 0; settings.inside && k < in_.sets; ++k) add_sum(Weight::kRelated, k);
    interval_ = settings.all && !settings.inside && in_.sets == 1 && this->sets()[0].relation == Relation::kInterval;

    loss_.plan = this->plan();
    loss_.squares = this->squares();
    loss_.rows = in_.n;
    loss_.columns = in_.m;
    loss_.items = this->items();
    loss_.anchors = anchors_;
    loss_.self = !in_.columns;
    loss_.self_offset = static_cast<int>(in_.self_offset);
    loss_.sets = in_.sets;
    std::copy_n(in_.weights, in_.sets, loss_.weights);
    loss_.inside = settings.inside;
    loss_.one_positive = settings.one_positive;
    loss_.all = settings.all;
    loss_.both_ways = settings.both_ways;
    loss_.slots = this->slots();
    loss_.row_slots = this->row_slots();
    loss_.column_slots = this->column_slots();
  }

  void forward(void* losses, void* statistics, double* totals) {
    this->make_plan(settings_.temperature, settings_.double_temperature, nullptr, 0, 0);
    this->count_positives(totals);
    Term maxima[2 * kMaxSets], terms[3 * kMaxSets];
    int count = 0;
    for (; count < sums_; ++count) {
      maxima[count] = terms[count] = sum_[count];
      maxima[count].function = Function::kMaximum;
    }
    const bool linear = !settings_.inside && !settings_.one_positive;
    for (int k = 0; linear && k < in_.sets; ++k) {
      terms[count++] = {Function::kLinear, Weight::kRelated, static_cast<uint8_t>(k), 0};
    }
    const int most = std::max(count, settings_.one_positive ? 2 * in_.sets : 0);

    ForwardJob<T> job = this->forward_job();
    job.partial = call_.take<T>(int64_t{most} * job.slots * anchors_);
    T* const log_sum = settings_.one_positive ? call_.take<T>(in_.sets * anchors_) : nullptr;
    job.shift = static_cast<const T*>(statistics);
    job.shift_stride = 2 * anchors_;
    job.log_sum = log_sum;
    loss_.totals = totals;
    loss_.partial = job.partial;
    const bool reduced = settings_.reduction != Reduction::kNone;
    loss_.losses = reduced ? call_.take<T>(anchors_) : static_cast<T*>(losses);
    loss_.statistics = static_cast<T*>(statistics);
    loss_.log_sum = log_sum;

    job.when = When::kOwnShifts;
    job.maximum = true;
    this->Base::forward(Kind::kAny, job, maxima, sums_);
    call_.run_for<shifts_kernel<T>>(anchors_, loss_);
    job.maximum = false;
    if (interval_) {
      this->Base::forward(Kind::kAny, job, terms, count);
      job.when = When::kConstantShift;
      this->Base::forward(Kind::kInterval, job, terms, count);
    } else {
      job.when = When::kAlways;
      this->Base::forward(Kind::kAny, job, terms, count);
    }
    if (settings_.one_positive) {
      call_.run_for<log_sums_kernel<T>>(anchors_, loss_);
      for (int k = 0; k < in_.sets; ++k) {
        const auto set = static_cast<uint8_t>(k);
        terms[k] = {Function::kSoftplus, Weight::kRelated, set, set};
        terms[in_.sets + k] = {Function::kSigmoid, Weight::kRelated, set, set};
      }
      this->Base::forward(Kind::kAny, job, terms, 2 * in_.sets);
    }
    call_.run_for<losses_kernel<T>>(anchors_, loss_);
    if (reduced) {
      call_.run<reduce_losses_kernel<T>>(1, kPrepareThreads, kPrepareThreads * sizeof(double), loss_.losses, anchors_,
                                         factor(), static_cast<T*>(losses));
    }
  }

  void backward(const void* grad_losses, const void* statistics, const double* totals, void* grad_rows,
                void* grad_columns) {
    double weights = 0;
    for (int k = 0; k < in_.sets; ++k) weights += std::abs(in_.weights[k]);
    const bool reduced = settings_.reduction != Reduction::kNone;
    loss_.reduced = reduced;
    loss_.grad_factor = factor();
    this->make_plan(settings_.temperature, settings_.double_temperature, grad_losses, reduced ? 1 : anchors_,
                    4 * weights * factor());
    const int64_t items = this->items();
    loss_.totals = totals;
    loss_.grad_losses = static_cast<const T*>(grad_losses);
    loss_.statistics = const_cast<T*>(static_cast<const T*>(statistics));
    loss_.shift = call_.take<T>(sums_ * items);
    loss_.coefficient = call_.take<T>(sums_ * items);
    loss_.positive = call_.take<T>(in_.sets * items);
    loss_.log_sum = settings_.one_positive ? call_.take<T>(in_.sets * items) : nullptr;
    call_.run_for<coefficients_kernel<T>>(items, loss_);

    BackwardJob<T> job{};
    job.sums = sums_;
    std::copy_n(sum_, sums_, job.sum);
    job.shift = loss_.shift;
    job.coefficient = loss_.coefficient;
    job.positive = settings_.inside ? nullptr : loss_.positive;
    job.log_sum = loss_.log_sum;
    job.both_ways = settings_.both_ways;
    this->Base::backward(interval_ ? Kind::kInterval : Kind::kAny, job, grad_rows, grad_columns);
  }

 private:
  Call& call_;
  const Inputs& in_;
  const ContrastiveSettings& settings_;
  int64_t anchors_;
  Term sum_[2 * kMaxSets];
  int sums_ = 0;
  bool interval_;
  LossJob<T> loss_{};

  double factor() const { return settings_.reduction == Reduction::kMean ? 1 / static_cast<double>(anchors_) : 1; }

  void add_sum(Weight weight, int k) {
    sum_[sums_] = {Function::kExponential, weight, static_cast<uint8_t>(k), static_cast<uint8_t>(sums_)};
    ++sums_;
  }
};

// ---- the pair margin loss

template <class Math>
class PairMargin : Pass<Math> {
 public:
  using T = typename Math::Accumulator;
  using Base = Pass<Math>;

  PairMargin(Call& call, const Inputs& inputs, double margin) : Base(call, inputs, inputs.n), call_(call), in_(inputs) {
    margin_.margin = static_cast<T>(margin);
    for (int k = 0; k < in_.sets; ++k) margin_.weights[k] = static_cast<T>(in_.weights[k]);
    margin_.squares = this->squares();
    pairs_ = std::max<double>(1, static_cast<double>(in_.m - (in_.self_offset >= 0)));
  }

  void forward(void* losses, double* totals) {
    this->make_plan(nullptr, false, nullptr, 0, 0);
    this->count_positives(totals);
    const Term term{Function::kLinear, Weight::kEvery, 0, 0};
    ForwardJob<T> job = this->forward_job();
    job.margin = margin_;
    job.partial = call_.take<T>(int64_t{job.slots} * in_.n);
    this->Base::forward(Kind::kMargin, job, &term, 1);
    LossJob<T> loss{};
    loss.plan = this->plan();
    loss.squares = this->squares();
    loss.rows = loss.anchors = in_.n;
    loss.partial = job.partial;
    loss.slots = this->slots();
    loss.row_slots = this->row_slots();
    loss.losses = static_cast<T*>(losses);
    call_.run_for<margin_losses_kernel<T>>(in_.n, loss, pairs_);
  }

  void backward(const void* grad_losses, void* grad_rows, void* grad_columns) {
    double weights = 0;
    for (int k = 0; k < in_.sets; ++k) weights += std::abs(in_.weights[k]);
    this->make_plan(nullptr, false, grad_losses, in_.n, 4 * kPush * weights / pairs_);
    T* const upstream = call_.take<T>(this->items());
    call_.run_for<margin_upstream_kernel<T>>(this->items(), static_cast<const T*>(grad_losses), upstream, in_.n,
                                             this->items(), static_cast<T>(2 / pairs_));
    margin_.upstream = upstream;
    BackwardJob<T> job{};
    job.margin = margin_;
    this->Base::backward(Kind::kMargin, job, grad_rows, grad_columns);
  }

 private:
  Call& call_;
  const Inputs& in_;
  MarginArguments<T> margin_{};
  double pairs_;
};

// ---- dtypes

// Calls use(Math{}) for a dtype.
template <class Use>
void with_math(Dtype dtype, const Use& use) {
  switch (dtype) {
    case Dtype::kBfloat16:
      return use(Bfloat16Math{});
    case Dtype::kFloat16:
      return use(Float16Math{});
    case Dtype::kFloat32:
      return use(Float32Math{});
    case Dtype::kFloat32AsTf32:
      return use(FastFloat32Math{});
    case Dtype::kFloat64:
      return use(DoubleMath{});
  }
}

const char* refuse(const Inputs& inputs) {
  constexpr int64_t kMost = INT_MAX - 1024;
  if (inputs.n < 1 || inputs.m < 1 || inputs.d < 1) return "rows and columns must not be empty";
  if (inputs.items() > kMost) return "rows and columns must together be fewer than 2^31";
  if (inputs.sets < 1 || inputs.sets > kMaxSets) return "1 to 16 label sets are possible on CUDA";
  return nullptr;
}

// `use(call, Math)` launches, or measures if the workspace is asked for.
template <class Use>
const char* run(const Inputs& inputs, const Use& use) {
  if (const char* error = refuse(inputs)) return error;
  Call call(inputs, false);
  with_math(inputs.dtype, [&](auto math) { use(call, math); });
  return call.error();
}
template <class Use>
size_t measure(const Inputs& inputs, const Use& use) {
  if (refuse(inputs)) return 0;
  Call call(inputs, true);
  with_math(inputs.dtype, [&](auto math) { use(call, math); });
  return call.used();
}

}  // namespace

// Pointers that are only compared or offset, never read.
static char* const kSomewhere = reinterpret_cast<char*>(256);

const char* contrastive_forward(const Inputs& inputs, const ContrastiveSettings& settings, void* losses,
                                void* statistics, double* totals) {
  return run(inputs, [&]<class Math>(Call& call, Math) {
    Contrastive<Math>(call, inputs, settings).forward(losses, statistics, totals);
  });
}

size_t contrastive_forward_workspace(const Inputs& inputs, const ContrastiveSettings& settings) {
  return measure(inputs, [&]<class Math>(Call& call, Math) {
    Contrastive<Math>(call, inputs, settings).forward(nullptr, nullptr, nullptr);
  });
}

const char* contrastive_backward(const Inputs& inputs, const ContrastiveSettings& settings, const void* grad_losses,
                                 const void* statistics, const double* totals, void* grad_rows, void* grad_columns) {
  return run(inputs, [&]<class Math>(Call& call, Math) {
    Contrastive<Math>(call, inputs, settings).backward(grad_losses, statistics, totals, grad_rows, grad_columns);
  });
}

size_t contrastive_backward_workspace(const Inputs& inputs, const ContrastiveSettings& settings) {
  return measure(inputs, [&]<class Math>(Call& call, Math) {
    Contrastive<Math>(call, inputs, settings).backward(nullptr, nullptr, nullptr, kSomewhere + 1, kSomewhere + 1);
  });
}

const char* pair_margin_forward(const Inputs& inputs, double margin, void* losses, double* totals) {
  return run(inputs,
             [&]<class Math>(Call& call, Math) { PairMargin<Math>(call, inputs, margin).forward(losses, totals); });
}

size_t pair_margin_forward_workspace(const Inputs& inputs) {
  return measure(inputs,
                 [&]<class Math>(Call& call, Math) { PairMargin<Math>(call, inputs, 1).forward(nullptr, nullptr); });
}

const char* pair_margin_backward(const Inputs& inputs, double margin, const void* grad_losses, void* grad_rows,
                                 void* grad_columns) {
  return run(inputs, [&]<class Math>(Call& call, Math) {
    PairMargin<Math>(call, inputs, margin).backward(grad_losses, grad_rows, grad_columns);
  });
}

size_t pair_margin_backward_workspace(const Inputs& inputs) {
  return measure(inputs, [&]<class Math>(Call& call, Math) {
    PairMargin<Math>(call, inputs, 1).backward(nullptr, kSomewhere + 1, kSomewhere + 1);
  });
}

}  // namespace mmcuda
