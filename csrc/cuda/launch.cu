// Which kernels a loss needs, in which order, and what they pass on. See launch.h.

#include <algorithm>
#include <cmath>

#include "launch.h"
#include "pass.h"

namespace mmcuda {
namespace {

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
    Term maxima[2 * kMostSets], terms[3 * kMostSets];
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
  Term sum_[2 * kMostSets];
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

const char* refuse(const Inputs& inputs) {
  constexpr int64_t kMost = INT_MAX - 1024;
  if (inputs.n < 1 || inputs.m < 1 || inputs.d < 1) return "rows and columns must not be empty";
  if (inputs.items() > kMost) return "rows and columns must together be fewer than 2^31";
  if (inputs.sets < 1 || inputs.sets > kMostSets) return "1 to 16 attributes are possible on CUDA";
  return nullptr;
}

// Launches what use(call, Math{}) says for the dtype of the inputs, or only measures it; returns the call.
template <class Use>
Call with_math(const Inputs& inputs, bool measure, const Use& use) {
  Call call(inputs, measure, refuse(inputs));
  if (call.error()) return call;
  switch (inputs.dtype) {
    case Dtype::kBfloat16:
      use(call, Bfloat16Math{});
      break;
    case Dtype::kFloat16:
      use(call, Float16Math{});
      break;
    case Dtype::kFloat32:
      use(call, Float32Math{});
      break;
    case Dtype::kFloat32AsTf32:
      use(call, FastFloat32Math{});
      break;
    case Dtype::kFloat64:
      use(call, DoubleMath{});
      break;
  }
  return call;
}

}  // namespace

// Pointers that are only compared or offset, never read.
static char* const kSomewhere = reinterpret_cast<char*>(256);

const char* contrastive_forward(const Inputs& inputs, const ContrastiveSettings& settings, void* losses,
                                void* statistics, double* totals) {
  return with_math(inputs, false,
                   [&]<class Math>(Call& call, Math) {
                     Contrastive<Math>(call, inputs, settings).forward(losses, statistics, totals);
                   })
      .error();
}

size_t contrastive_forward_workspace(const Inputs& inputs, const ContrastiveSettings& settings) {
  return with_math(inputs, true,
                   [&]<class Math>(Call& call, Math) {
                     Contrastive<Math>(call, inputs, settings).forward(nullptr, nullptr, nullptr);
                   })
      .used();
}

const char* contrastive_backward(const Inputs& inputs, const ContrastiveSettings& settings, const void* grad_losses,
                                 const void* statistics, const double* totals, void* grad_rows, void* grad_columns) {
  return with_math(inputs, false,
                   [&]<class Math>(Call& call, Math) {
                     Contrastive<Math>(call, inputs, settings)
                         .backward(grad_losses, statistics, totals, grad_rows, grad_columns);
                   })
      .error();
}

size_t contrastive_backward_workspace(const Inputs& inputs, const ContrastiveSettings& settings) {
  return with_math(inputs, true,
                   [&]<class Math>(Call& call, Math) {
                     Contrastive<Math>(call, inputs, settings)
                         .backward(nullptr, nullptr, nullptr, kSomewhere + 1, kSomewhere + 1);
                   })
      .used();
}

const char* pair_margin_forward(const Inputs& inputs, double margin, void* losses, double* totals) {
  return with_math(
             inputs, false,
             [&]<class Math>(Call& call, Math) { PairMargin<Math>(call, inputs, margin).forward(losses, totals); })
      .error();
}

size_t pair_margin_forward_workspace(const Inputs& inputs) {
  return with_math(inputs, true,
                   [&]<class Math>(Call& call, Math) { PairMargin<Math>(call, inputs, 1).forward(nullptr, nullptr); })
      .used();
}

const char* pair_margin_backward(const Inputs& inputs, double margin, const void* grad_losses, void* grad_rows,
                                 void* grad_columns) {
  return with_math(inputs, false,
                   [&]<class Math>(Call& call, Math) {
                     PairMargin<Math>(call, inputs, margin).backward(grad_losses, grad_rows, grad_columns);
                   })
      .error();
}

size_t pair_margin_backward_workspace(const Inputs& inputs) {
  return with_math(inputs, true,
                   [&]<class Math>(Call& call, Math) {
                     PairMargin<Math>(call, inputs, 1).backward(nullptr, kSomewhere + 1, kSomewhere + 1);
                   })
      .used();
}

}  // namespace mmcuda
