// The members of the contrastive loss family and what follows from them, once for host and device: which exponential
// sums a loss has, where the forward saves them for the backward, and the weights a_ki. The maths is in contrastive.h.

#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MMCUDA_HOST_DEVICE __host__ __device__
#else
#define MMCUDA_HOST_DEVICE
#endif

namespace mmcuda {

struct LossFamily {
  int sets;           // K
  bool all, sincere;  // the denominator; neither: negatives
  bool inside;        // positives inside the logarithm
  bool symmetric;     // keys are anchors as well

  // The exponential sums: denominators, one for all or one per attribute, then the numerators inside the logarithm.
  MMCUDA_HOST_DEVICE int denominators() const { return all ? 1 : sets; }
  MMCUDA_HOST_DEVICE int sums() const { return denominators() + (inside ? sets : 0); }
  MMCUDA_HOST_DEVICE int denominator(int k) const { return all ? 0 : k; }
  MMCUDA_HOST_DEVICE int numerator(int k) const { return denominators() + k; }
  // Whether there is a linear term, sum_j r_kij s_ij / n_ki.
  MMCUDA_HOST_DEVICE bool has_linear() const { return !inside && !sincere; }

  // Rows of saved_lse [S, A]: shift and sum of each exponential sum, then the mean sigmoid of each attribute.
  MMCUDA_HOST_DEVICE static int shift_row(int sum) { return 2 * sum; }
  MMCUDA_HOST_DEVICE static int sum_row(int sum) { return 2 * sum + 1; }
  MMCUDA_HOST_DEVICE int sigmoid_row(int k) const { return 2 * sums() + k; }
  MMCUDA_HOST_DEVICE int saved_rows() const { return sigmoid_row(sincere ? sets : 0); }

  // a_ki of an anchor with `positives` among its `pairs`; w is w_k.
  MMCUDA_HOST_DEVICE double active_weight(double w, double positives, double pairs) const {
    if (!(positives > 0)) return 0;
    return all || sincere || pairs - positives > 1e-6 ? w : 0;
  }
};

}  // namespace mmcuda
