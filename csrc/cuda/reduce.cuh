// From the sums of macro tiles to shifts, saved_lse and losses, one thread an anchor; and what the backward needs per
// item. Slots are added in their order, in double. The maths is in ../contrastive.h.

#pragma once

#include "../loss_family.h"
#include "prepare.cuh"

namespace mmcuda {

inline constexpr double kLn2 = 0.6931471805599453;

// A loss as its host settings say. Sums: denominators, one for all or one a set, then the numerators inside the log.
template <class T>
struct LossJob {
  const DeviceScalars* scalars;
  const T* squares;               // per item
  const double* positive_counts;  // [K, A] n_ki
  int64_t rows, columns;          // N, M
  int64_t items, anchors;         // L, A
  int self;
  int anchor_offset;  // column of row 0 that is row 0 itself; -1: none
  double weights[kMostSets];
  LossFamily family;

  // forward
  const T* partial;             // [terms, slots, A]
  int slots;                    // .. apart
  int row_slots, column_slots;  // of them used for an item of the rows, of the columns
  T* losses;                    // [A]
  T* saved_lse;                 // [S, A]: shift and sum of each exponential sum, then the mean sigmoids
  T* log_sum;                   // [K, A] forward, [K, L] backward

  // backward
  const T* grad_losses;  // [A], or [1] where losses are reduced
  int reduced;
  double grad_factor;  // 1, or 1 / A of a mean
  T* shift;            // [sums, L]
  T* coefficient;      // [sums, L] what exp(..) is multiplied with
  T* positive;         // [K, L] g_i a_ki / n_ki

  __device__ double total(int k, int64_t a) const { return positive_counts[k * anchors + a]; }
  // a_ki
  __device__ double active_weight(int k, int64_t a) const {
    const int64_t j = a - rows - anchor_offset;
    const bool itself = anchor_offset >= 0 && (a < rows || (j >= 0 && j < rows));
    const double pairs = static_cast<double>((a < rows ? columns : rows) - (itself ? 1 : 0));
    return family.active_weight(weights[k], total(k, a), pairs);
  }
  // Sum of a term over all macro tiles.
  __device__ double sum_of(int term, int64_t a) const {
    const T* const slot = partial + int64_t{term} * slots * anchors + a;
    const int count = a < rows ? row_slots : column_slots;
    double sum = 0;
    for (int s = 0; s < count; ++s) sum += slot[s * anchors];
    return sum;
  }
};

// n_ki of one set from the sums of a counting pass.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads)
    positive_counts_kernel(const __grid_constant__ LossJob<T> job, int term, double* positive_counts) {
  for (int64_t a = global_thread(); a < job.anchors; a += all_threads()) positive_counts[a] = job.sum_of(term, a);
}

// The shift of every exponential sum: the bound of all dot products where that is safe, else the largest of the anchor.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads) shifts_kernel(const __grid_constant__ LossJob<T> job) {
  for (int64_t a = global_thread(); a < job.anchors; a += all_threads()) {
    for (int s = 0; s < job.family.sums(); ++s) {
      T shift = static_cast<T>(job.scalars->shift);
      if (!job.scalars->constant_shift) {
        shift = lowest<T>();
        for (int slot = 0; slot < (a < job.rows ? job.row_slots : job.column_slots); ++slot) {
          const T value = job.partial[(int64_t{s} * job.slots + slot) * job.anchors + a];
          if (value > shift) shift = value;
        }
        if (shift == lowest<T>()) shift = 0;
      }
      job.saved_lse[LossFamily::shift_row(s) * job.anchors + a] = shift;
    }
  }
}

// Before the softplus pass: the sums E_ki and their logarithms.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads) log_sums_kernel(const __grid_constant__ LossJob<T> job) {
  for (int64_t a = global_thread(); a < job.anchors; a += all_threads()) {
    for (int k = 0; k < job.family.sets; ++k) {
      const double sum = job.sum_of(k, a);
      job.saved_lse[LossFamily::sum_row(k) * job.anchors + a] = static_cast<T>(sum);
      job.log_sum[k * job.anchors + a] = static_cast<T>(log2(sum));
    }
  }
}

// Terms are the exponential sums and the linear ones, or softplus and sigmoid of each set.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads) losses_kernel(const __grid_constant__ LossJob<T> job) {
  const DeviceScalars& scalars = *job.scalars;
  const int sets = job.family.sets, sums = job.family.sums();
  for (int64_t a = global_thread(); a < job.anchors; a += all_threads()) {
    const auto log_of = [&](int s) {
      const double sum = job.sum_of(s, a);
      job.saved_lse[LossFamily::sum_row(s) * job.anchors + a] = static_cast<T>(sum);
      return static_cast<double>(job.saved_lse[LossFamily::shift_row(s) * job.anchors + a]) / scalars.temperature +
             log(sum);
    };
    double loss = 0;
    bool active = false;
    double shared_denominator = 0;
    if (job.family.all) shared_denominator = log_of(0);
    for (int k = 0; k < sets; ++k) {
      const double weight = job.active_weight(k, a), total = job.total(k, a);
      active |= weight > 0;
      // Sets that are not active are left out, also because their sums may be empty: log 0.
      if (job.family.sincere) {
        const double softplus = job.sum_of(k, a), sigmoid = job.sum_of(sets + k, a);
        job.saved_lse[job.family.sigmoid_row(k) * job.anchors + a] = static_cast<T>(total > 0 ? sigmoid / total : 0);
        if (weight > 0) loss += weight / total * softplus * kLn2;
        continue;
      }
      const double denominator = job.family.all ? shared_denominator : log_of(k);
      const double numerator = job.family.inside ? log_of(job.family.numerator(k)) - log(total)
                                                 : job.sum_of(sums + k, a) / total / scalars.temperature;
      if (weight > 0) loss += weight * (denominator - numerator);
    }
    const bool bad = nonfinite(scalars, job.squares, job.rows, a);
    job.losses[a] = !active ? T(0) : bad ? static_cast<T>(NAN) : static_cast<T>(loss);
  }
}

// The sum of `count` losses times a factor, by one block: each thread adds every kPrepareThreads-th, then a tree.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads)
    reduce_losses_kernel(const T* losses, int64_t count, double factor, T* result) {
  MMCUDA_DYNAMIC_SHARED(shared);
  double* const sums = reinterpret_cast<double*>(shared);  // [kPrepareThreads]
  const int thread = static_cast<int>(threadIdx.x);
  double sum = 0;
  for (int64_t a = thread; a < count; a += kPrepareThreads) sum += losses[a];
  sums[thread] = sum;
  for (int half = kPrepareThreads / 2; half; half /= 2) {
    __syncthreads();
    if (thread < half) sums[thread] += sums[thread + half];
  }
  if (thread == 0) *result = static_cast<T>(sums[0] * factor);
}

// Shifts, coefficients and weights of the positives per item; items that are no anchors have the coefficient 0.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads) coefficients_kernel(const __grid_constant__ LossJob<T> job) {
  const DeviceScalars& scalars = *job.scalars;
  const int sums = job.family.sums();
  const double factor = job.grad_factor / scalars.temperature * scalars.gradient_unit;
  for (int64_t i = global_thread(); i < job.items; i += all_threads()) {
    const bool anchor = i < job.anchors;
    for (int q = 0; job.family.sincere && q < sums; ++q) {
      const double sum = anchor ? job.saved_lse[LossFamily::sum_row(q) * job.anchors + i] : T(1);
      job.log_sum[q * job.items + i] = static_cast<T>(log2(sum));
    }
    const double g = anchor ? job.grad_losses[job.reduced ? 0 : i] * factor : 0;  // of x_i.y_j
    for (int q = 0; q < sums + job.family.sets; ++q) {                            // the sums, then the positives
      const int k = q >= sums ? q - sums : q < job.family.denominators() ? q : q - job.family.denominators();
      double active = 0, whole = 1;
      if (anchor) {
        if (job.family.all && q == 0) {
          for (int l = 0; l < job.family.sets; ++l) active += job.active_weight(l, i);
        } else {
          active = job.active_weight(k, i);
        }
        whole = q < sums ? job.saved_lse[LossFamily::sum_row(q) * job.anchors + i] : job.total(k, i);
        if (q < sums && q >= job.family.denominators()) active = -active;
        if (q < sums && job.family.sincere) active *= job.saved_lse[job.family.sigmoid_row(q) * job.anchors + i];
      }
      const T part = static_cast<T>(active != 0 && whole > 0 ? g * active / whole : 0);
      if (q >= sums) {
        job.positive[k * job.items + i] = part;
        continue;
      }
      job.coefficient[q * job.items + i] = part;
      job.shift[q * job.items + i] = anchor ? job.saved_lse[LossFamily::shift_row(q) * job.anchors + i] : T(0);
    }
  }
}

// ---- the pair margin loss

// Incoming gradients per item: those of rows times 2 / pairs, 0 of columns.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads)
    margin_grad_output_kernel(const T* grad_losses, T* grad_output, int64_t rows, int64_t items, T scale) {
  for (int64_t i = global_thread(); i < items; i += all_threads())
    grad_output[i] = i < rows ? grad_losses[i] * scale : T(0);
}

// Means over the pairs of a row.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads)
    margin_losses_kernel(const __grid_constant__ LossJob<T> job, double pairs) {
  for (int64_t a = global_thread(); a < job.rows; a += all_threads()) {
    const bool bad = nonfinite(*job.scalars, job.squares, job.rows, a);
    job.losses[a] = bad ? static_cast<T>(NAN) : static_cast<T>(job.sum_of(0, a) / pairs);
  }
}

}  // namespace mmcuda
