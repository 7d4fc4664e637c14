// The losses on device memory, without torch: what the host wrappers call. The maths is in ../contrastive.h.
//
// Functions return null, or the text of an error. They only launch kernels on the stream: no allocation, no waiting, so
// that they may be captured into a graph. All pointers are device memory; every array is contiguous.

#pragma once

#include <cstddef>
#include <cstdint>

#include "../contrastive.h"
#include "../loss_family.h"
#include "limits.h"

namespace mmcuda {

// T, the dtype of losses, saved_lse and masks, is double for kFloat64 and else float.
enum class Dtype {
  kBfloat16,
  kFloat16,
  kFloat32,        // as exact as float32 multiplications
  kFloat32AsTf32,  // products of 11 bits, faster
  kFloat64
};

// An attribute over L items: the rows and, in cross-contrast, the columns behind them.
struct LabelInput {
  const int32_t* intervals;  // [3, L] order, begin and end of the interval; null for the mask
  const double* values;      // kGaussian: [L]
  const int32_t* bits;       // kOverlap: [words, 2, L]
  int64_t words;
};

struct Inputs {
  Dtype dtype;
  const void* rows;       // [N, D]
  const void* columns;    // [M, D]; null in self-contrast
  int64_t n, m, d;        // M = N in self-contrast
  int64_t anchor_offset;  // row i is column i + anchor_offset; 0 in self-contrast; -1: no row is a column
  int sets;               // K, with the mask, which is the last
  LabelInput labels[kMostSets];
  double weights[kMostSets];
  const void* mask;  // [mask_rows, mask_columns] of T, or null
  int64_t mask_rows, mask_columns;

  DeviceLimits limits;
  void* workspace;  // at least as large as the function below says, 256-byte aligned
  void* stream;     // cudaStream_t

  int64_t items() const { return columns ? n + m : n; }
};

enum class Reduction { kNone, kMean, kSum };

struct ContrastiveSettings {
  const void* temperature;  // one number
  bool double_temperature;  // a double, else a float
  bool inside;              // positives inside the logarithm
  bool all, sincere;        // denominator; neither: negatives
  bool symmetric;           // columns are anchors as well: A = N + M
  Reduction reduction;      // of the losses, to one number

  LossFamily family(int sets) const { return {sets, all, sincere, inside, symmetric}; }
};

// Bytes; the pointers in `inputs` need not be set, but columns and mask must be null or not, and rows, columns and
// gradients as aligned as they will be.
size_t contrastive_forward_workspace(const Inputs& inputs, const ContrastiveSettings& settings);
size_t contrastive_backward_workspace(const Inputs& inputs, const ContrastiveSettings& settings);
size_t pair_margin_forward_workspace(const Inputs& inputs);
size_t pair_margin_backward_workspace(const Inputs& inputs);

// losses [A], or reduced [1], saved_lse [S, A], positive_counts [K, A]
const char* contrastive_forward(const Inputs& inputs, const ContrastiveSettings& settings, void* losses,
                                void* saved_lse, double* positive_counts);
// grad_losses as the losses -> grad_rows [N, D], grad_columns [M, D], each null if not wanted
const char* contrastive_backward(const Inputs& inputs, const ContrastiveSettings& settings, const void* grad_losses,
                                 const void* saved_lse, const double* positive_counts, void* grad_rows,
                                 void* grad_columns);

// losses [N], means over the columns, positive_counts [K, N]
const char* pair_margin_forward(const Inputs& inputs, double margin, void* losses, double* positive_counts);
const char* pair_margin_backward(const Inputs& inputs, double margin, const void* grad_losses, void* grad_rows,
                                 void* grad_columns);

}  // namespace mmcuda
