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
      : Base(call, inputs, settings.symmetric ? inputs.items() : inputs.n),
        call_(call),
        in_(inputs),
        settings_(settings),
        family_(settings.family(inputs.sets)),
        anchors_(settings.symmetric ? inputs.items() : inputs.n) {
    for (int k = 0; k < family_.denominators(); ++k) {
      add_sum(settings.all ? Weight::kEvery : Weight::kUnrelated, k);
    }
    for (int k = 0; settings.inside && k < in_.sets; ++k) add_sum(Weight::kRelated, k);
    interval_ = settings.all && !settings.inside && in_.sets == 1 && this->sets()[0].relation == Relation::kInterval;

    loss_.scalars = this->scalars();
    loss_.squares = this->squares();
    loss_.rows = in_.n;
    loss_.columns = in_.m;
    loss_.items = this->items();
    loss_.anchors = anchors_;
    loss_.self = !in_.columns;
    loss_.anchor_offset = static_cast<int>(in_.anchor_offset);
    std::copy_n(in_.weights, in_.sets, loss_.weights);
    loss_.family = family_;
    loss_.slots = this->slots();
    loss_.row_slots = this->row_slots();
    loss_.column_slots = this->column_slots();
  }

  void forward(void* losses, void* saved_lse, double* positive_counts) {
    this->make_scalars(settings_.temperature, settings_.double_temperature, nullptr, 0, 0);
    this->count_positives(positive_counts);
    Term maxima[2 * kMostSets], terms[3 * kMostSets];
    int count = 0;
    for (; count < sums_; ++count) {
      maxima[count] = terms[count] = sum_[count];
      maxima[count].function = Function::kMaximum;
    }
    for (int k = 0; family_.has_linear() && k < in_.sets; ++k) {
      terms[count++] = {Function::kLinear, Weight::kRelated, static_cast<uint8_t>(k), 0};
    }
    const int most = std::max(count, settings_.sincere ? 2 * in_.sets : 0);

    ForwardJob<T> job = this->forward_job();
    job.partial = call_.take<T>(int64_t{most} * job.slots * anchors_);
    T* const log_sum = settings_.sincere ? call_.take<T>(in_.sets * anchors_) : nullptr;
    job.shift = static_cast<const T*>(saved_lse);
    job.shift_stride = 2 * anchors_;
    job.log_sum = log_sum;
    loss_.positive_counts = positive_counts;
    loss_.partial = job.partial;
    const bool reduced = settings_.reduction != Reduction::kNone;
    loss_.losses = reduced ? call_.take<T>(anchors_) : static_cast<T*>(losses);
    loss_.saved_lse = static_cast<T*>(saved_lse);
    loss_.log_sum = log_sum;

    job.shift_mode = ShiftMode::kOwnShifts;
    job.maximum = true;
    this->Base::forward(Kind::kAny, job, maxima, sums_);
    call_.run_for<shifts_kernel<T>>(anchors_, loss_);
    job.maximum = false;
    if (interval_) {
      this->Base::forward(Kind::kAny, job, terms, count);
      job.shift_mode = ShiftMode::kConstantShift;
      this->Base::forward(Kind::kInterval, job, terms, count);
    } else {
      job.shift_mode = ShiftMode::kAlways;
      this->Base::forward(Kind::kAny, job, terms, count);
    }
    if (settings_.sincere) {
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

  void backward(const void* grad_losses, const void* saved_lse, const double* positive_counts, void* grad_rows,
                void* grad_columns) {
    double weights = 0;
    for (int k = 0; k < in_.sets; ++k) weights += std::abs(in_.weights[k]);
    const bool reduced = settings_.reduction != Reduction::kNone;
    loss_.reduced = reduced;
    loss_.grad_factor = factor();
    this->make_scalars(settings_.temperature, settings_.double_temperature, grad_losses, reduced ? 1 : anchors_,
                       4 * weights * factor());
    const int64_t items = this->items();
    loss_.positive_counts = positive_counts;
    loss_.grad_losses = static_cast<const T*>(grad_losses);
    loss_.saved_lse = const_cast<T*>(static_cast<const T*>(saved_lse));
    loss_.shift = call_.take<T>(sums_ * items);
    loss_.coefficient = call_.take<T>(sums_ * items);
    loss_.positive = call_.take<T>(in_.sets * items);
    loss_.log_sum = settings_.sincere ? call_.take<T>(in_.sets * items) : nullptr;
    call_.run_for<coefficients_kernel<T>>(items, loss_);

    BackwardJob<T> job{};
    job.sums = sums_;
    std::copy_n(sum_, sums_, job.sum);
    job.shift = loss_.shift;
    job.coefficient = loss_.coefficient;
    job.positive = settings_.inside ? nullptr : loss_.positive;
    job.log_sum = loss_.log_sum;
    job.symmetric = settings_.symmetric;
    this->Base::backward(interval_ ? Kind::kInterval : Kind::kAny, job, grad_rows, grad_columns);
  }

 private:
  Call& call_;
  const Inputs& in_;
  const ContrastiveSettings& settings_;
  LossFamily family_;
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
    pairs_ = std::max<double>(1, static_cast<double>(in_.m - (in_.anchor_offset >= 0)));
  }

  void forward(void* losses, double* positive_counts) {
    this->make_scalars(nullptr, false, nullptr, 0, 0);
    this->count_positives(positive_counts);
    const Term term{Function::kLinear, Weight::kEvery, 0, 0};
    ForwardJob<T> job = this->forward_job();
    job.margin = margin_;
    job.partial = call_.take<T>(int64_t{job.slots} * in_.n);
    this->Base::forward(Kind::kMargin, job, &term, 1);
    LossJob<T> loss{};
    loss.scalars = this->scalars();
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
    this->make_scalars(nullptr, false, grad_losses, in_.n, 4 * kPush * weights / pairs_);
    T* const grad_output = call_.take<T>(this->items());
    call_.run_for<margin_grad_output_kernel<T>>(this->items(), static_cast<const T*>(grad_losses), grad_output, in_.n,
                                                this->items(), static_cast<T>(2 / pairs_));
    margin_.grad_output = grad_output;
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
                                void* saved_lse, double* positive_counts) {
  return with_math(inputs, false,
                   [&]<class Math>(Call& call, Math) {
                     Contrastive<Math>(call, inputs, settings).forward(losses, saved_lse, positive_counts);
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
                                 const void* saved_lse, const double* positive_counts, void* grad_rows,
                                 void* grad_columns) {
  return with_math(inputs, false,
                   [&]<class Math>(Call& call, Math) {
                     Contrastive<Math>(call, inputs, settings)
                         .backward(grad_losses, saved_lse, positive_counts, grad_rows, grad_columns);
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

const char* pair_margin_forward(const Inputs& inputs, double margin, void* losses, double* positive_counts) {
  return with_math(inputs, false,
                   [&]<class Math>(Call& call, Math) {
                     PairMargin<Math>(call, inputs, margin).forward(losses, positive_counts);
                   })
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
