// The operators Python can call (torch.ops.mmcuda.*).
//
// N rows [.., D] meet M columns [.., D]; without columns the rows meet each other. Items are the rows and, where there
// are columns, these behind them: L = N or N + M. Anchors are the rows and, `both_ways`, the columns, too: A = N or
// N + M. K attributes; a mask is one more, the last.

#include <torch/csrc/stable/library.h>

#ifdef MMCUDA_SIMT
#define MMCUDA_LIBRARY(m) STABLE_TORCH_LIBRARY(mmcuda_simt, m)
#else
#define MMCUDA_LIBRARY(m) STABLE_TORCH_LIBRARY(mmcuda, m)
#endif

MMCUDA_LIBRARY(m) {
  // labels: K tensors [B], int64 (-1 = missing) or float64 (NaN = missing) -> [K, 3, B views] int32: rank, first, last
  m.def("label_ranks(Tensor[] labels, float[] tolerances, SymInt views) -> Tensor");
  // temperature [], ranks [K, 3, L], words [K]: 0 (an interval of ranks), -1 (Gaussian) or W > 0 (overlap),
  // relation_data [U, 2, L] int32: behind each other the L float64 of each Gaussian and the [W, 2, L] words of each
  // overlap, mask [B, B'] -> loss [A] or, reduced, []; statistics [S, A]: shift and sum of each
  // exponential sum and for "one_positive" the mean sigmoid of each attribute; totals [K, A] float64: how many
  // positives an anchor has; dots [.., kBlockPairs]: to keep, on the CPU, the dot products of as many block pairs as
  // kMostKept allows. allow_tf32: CUDA may round float32 factors so.
  m.def(
      "contrastive_fwd(Tensor rows, Tensor? columns, Tensor temperature, Tensor ranks, Tensor? relation_data, int[] "
      "words, "
      "Tensor? mask, float[] weights, SymInt? self_offset, str positives, str denominator, bool both_ways, str "
      "reduction, bool "
      "allow_tf32, bool keep) -> (Tensor, Tensor, Tensor, Tensor)");
  // grad_loss as the loss -> grad_rows [.., D], grad_columns [.., D], empty where not needed
  m.def(
      "contrastive_bwd(Tensor grad_loss, Tensor statistics, Tensor totals, Tensor dots, bool need_rows, bool "
      "need_columns, Tensor rows, Tensor? columns, Tensor temperature, Tensor ranks, Tensor? relation_data, int[] "
      "words, "
      "Tensor? mask, float[] weights, SymInt? self_offset, str positives, str denominator, bool both_ways, str "
      "reduction, bool "
      "allow_tf32) -> (Tensor, Tensor)");
  // -> losses [N], means over the columns, totals [K, N]
  m.def(
      "pair_margin_fwd(Tensor rows, Tensor? columns, Tensor ranks, Tensor? relation_data, int[] words, float[] "
      "weights, "
      "SymInt? self_offset, float margin, bool allow_tf32) -> (Tensor, Tensor)");
  m.def(
      "pair_margin_bwd(Tensor grad_losses, bool need_rows, bool need_columns, Tensor rows, Tensor? columns, Tensor "
      "ranks, Tensor? relation_data, int[] words, float[] weights, SymInt? self_offset, float margin, bool allow_tf32) "
      "-> (Tensor, Tensor)");
}
