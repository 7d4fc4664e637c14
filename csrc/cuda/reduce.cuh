// From the sums of super-blocks to shifts, statistics and losses, one thread an anchor; and what the backward needs per
// item. Slots are added in their order, in double. The maths is in ../contrastive.h.

#pragma once

#include "prepare.cuh"

namespace mmcuda {

inline constexpr double kLn2 = 0.6931471805599453;

// A loss as its host settings say. Sums: denominators, one for all or one a set, then the numerators inside the log.
template <class T>
struct LossJob {
  const Plan* plan;
  const T* squares;        // per item
  const double* totals;    // [K, A] n_ki
  int64_t rows, columns;   // N, M
  int64_t items, anchors;  // L, A
  int self;
  int self_offset;  // column of row 0 that is row 0 itself; -1: none
  int sets;
  double weights[kMostSets];
  int inside, one_positive, all, both_ways;

  // forward
  const T* partial;             // [terms, slots, A]
  int slots;                    // .. apart
  int row_slots, column_slots;  // of them used for an item of the rows, of the columns
  T* losses;                    // [A]
  T* statistics;                // [S, A]: shift and sum of each exponential sum, then the mean sigmoids
  T* log_sum;                   // [K, A] forward, [K, L] backward

  // backward
  const T* grad_losses;  // [A], or [1] where losses are reduced
  int reduced;
  double grad_factor;  // 1, or 1 / A of a mean
  T* shift;            // [sums, L]
  T* coefficient;      // [sums, L] what exp(..) is multiplied with
  T* positive;         // [K, L] g_i a_ki / n_ki

  __host__ __device__ int denominators() const { return all ? 1 : sets; }
  __host__ __device__ int sums() const { return denominators() + (inside ? sets : 0); }
  __host__ __device__ bool has_linear() const { return !inside && !one_positive; }

  __device__ double total(int k, int64_t a) const { return totals[k * anchors + a]; }
  // a_ki
  __device__ double active_weight(int k, int64_t a) const {
    const double positives = total(k, a);
    if (!(positives > 0)) return 0;
    if (all || one_positive) return weights[k];
    const int64_t j = a - rows - self_offset;
    const bool itself = self_offset >= 0 && (a < rows || (j >= 0 && j < rows));
    const double pairs = static_cast<double>((a < rows ? columns : rows) - (itself ? 1 : 0));
    return pairs - positives > 1e-6 ? weights[k] : 0;
  }
  // Sum of a term over all super-blocks.
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
    totals_kernel(const __grid_constant__ LossJob<T> job, int term, double* totals) {
  for (int64_t a = global_thread(); a < job.anchors; a += all_threads()) totals[a] = job.sum_of(term, a);
}

// The shift of every exponential sum: the bound of all dot products where that is safe, else the largest of the anchor.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads) shifts_kernel(const __grid_constant__ LossJob<T> job) {
  for (int64_t a = global_thread(); a < job.anchors; a += all_threads()) {
    for (int s = 0; s < job.sums(); ++s) {
      T shift = static_cast<T>(job.plan->shift);
      if (!job.plan->constant_shift) {
        shift = lowest<T>();
        for (int slot = 0; slot < (a < job.rows ? job.row_slots : job.column_slots); ++slot) {
          const T value = job.partial[(int64_t{s} * job.slots + slot) * job.anchors + a];
          if (value > shift) shift = value;
        }
        if (shift == lowest<T>()) shift = 0;
      }
      job.statistics[2 * s * job.anchors + a] = shift;
    }
  }
}

// Before the softplus pass: the sums E_ki and their logarithms.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads) log_sums_kernel(const __grid_constant__ LossJob<T> job) {
  for (int64_t a = global_thread(); a < job.anchors; a += all_threads()) {
    for (int k = 0; k < job.sets; ++k) {
      const double sum = job.sum_of(k, a);
      job.statistics[(2 * k + 1) * job.anchors + a] = static_cast<T>(sum);
      job.log_sum[k * job.anchors + a] = static_cast<T>(log2(sum));
    }
  }
}

// Terms are the exponential sums and the linear ones, or softplus and sigmoid of each set.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads) losses_kernel(const __grid_constant__ LossJob<T> job) {
  const Plan& plan = *job.plan;
  const int sets = job.sets, sums = job.sums();
  for (int64_t a = global_thread(); a < job.anchors; a += all_threads()) {
    const auto log_of = [&](int s) {
      const double sum = job.sum_of(s, a);
      job.statistics[(2 * s + 1) * job.anchors + a] = static_cast<T>(sum);
      return static_cast<double>(job.statistics[2 * s * job.anchors + a]) / plan.temperature + log(sum);
    };
    double loss = 0;
    bool active = false;
    double shared_denominator = 0;
    if (job.all) shared_denominator = log_of(0);
    for (int k = 0; k < sets; ++k) {
      const double weight = job.active_weight(k, a), total = job.total(k, a);
      active |= weight > 0;
      // Sets that are not active are left out, also because their sums may be empty: log 0.
      if (job.one_positive) {
        const double softplus = job.sum_of(k, a), sigmoid = job.sum_of(sets + k, a);
        job.statistics[(2 * sums + k) * job.anchors + a] = static_cast<T>(total > 0 ? sigmoid / total : 0);
        if (weight > 0) loss += weight / total * softplus * kLn2;
        continue;
      }
      const double denominator = job.all ? shared_denominator : log_of(k);
      const double numerator =
          job.inside ? log_of(job.denominators() + k) - log(total) : job.sum_of(sums + k, a) / total / plan.temperature;
      if (weight > 0) loss += weight * (denominator - numerator);
    }
    const bool bad = poisoned(plan, job.squares, job.rows, a);
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
  const Plan& plan = *job.plan;
  const int sums = job.sums();
  const double factor = job.grad_factor / plan.temperature * plan.gradient_unit;
  for (int64_t i = global_thread(); i < job.items; i += all_threads()) {
    const bool anchor = i < job.anchors;
    for (int q = 0; job.one_positive && q < sums; ++q) {
      const double sum = anchor ? job.statistics[(2 * q + 1) * job.anchors + i] : T(1);
      job.log_sum[q * job.items + i] = static_cast<T>(log2(sum));
    }
    const double g = anchor ? job.grad_losses[job.reduced ? 0 : i] * factor : 0;  // of x_i.y_j
    for (int q = 0; q < sums + job.sets; ++q) {                                   // the sums, then the positives
      const int k = q >= sums ? q - sums : q < job.denominators() ? q : q - job.denominators();
      double active = 0, whole = 1;
      if (anchor) {
        if (job.all && q == 0) {
          for (int l = 0; l < job.sets; ++l) active += job.active_weight(l, i);
        } else {
          active = job.active_weight(k, i);
        }
        whole = q < sums ? job.statistics[(2 * q + 1) * job.anchors + i] : job.total(k, i);
        if (q < sums && q >= job.denominators()) active = -active;
        if (q < sums && job.one_positive) active *= job.statistics[(2 * sums + q) * job.anchors + i];
      }
      const T part = static_cast<T>(active != 0 && whole > 0 ? g * active / whole : 0);
      if (q >= sums) {
        job.positive[k * job.items + i] = part;
        continue;
      }
      job.coefficient[q * job.items + i] = part;
      job.shift[q * job.items + i] = anchor ? job.statistics[2 * q * job.anchors + i] : T(0);
    }
  }
}

// ---- the pair margin loss

// Incoming gradients per item: those of rows times 2 / pairs, 0 of columns.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads)
    margin_upstream_kernel(const T* grad_losses, T* upstream, int64_t rows, int64_t items, T scale) {
  for (int64_t i = global_thread(); i < items; i += all_threads())
    upstream[i] = i < rows ? grad_losses[i] * scale : T(0);
}

// Means over the pairs of a row.
template <class T>
__global__ void __launch_bounds__(kPrepareThreads)
    margin_losses_kernel(const __grid_constant__ LossJob<T> job, double pairs) {
  for (int64_t a = global_thread(); a < job.rows; a += all_threads()) {
    const bool bad = poisoned(*job.plan, job.squares, job.rows, a);
    job.losses[a] = bad ? static_cast<T>(NAN) : static_cast<T>(job.sum_of(0, a) / pairs);
  }
}

}  // namespace mmcuda
