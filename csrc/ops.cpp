// The operators Python can call (torch.ops.mmcuda.*).
//
// N anchors [.., D] meet M keys [.., D]; without keys the anchors meet each other. Items are the anchors and, where
// there are keys, these behind them: L = N or N + M. Each anchor has a loss and, `symmetric`, each key: A = N or N + M.
// K attributes; a mask is one more, the last.

#include <torch/csrc/stable/library.h>

#ifdef MMCUDA_SIMT
#define MMCUDA_LIBRARY(m) STABLE_TORCH_LIBRARY(mmcuda_simt, m)
#else
#define MMCUDA_LIBRARY(m) STABLE_TORCH_LIBRARY(mmcuda, m)
#endif

MMCUDA_LIBRARY(m) {
  // labels: K tensors [B], int64 (-1 = missing) or float64 (NaN = missing) -> [K, 3, B views] int32: place in the
  // order, first and last place of the positives
  m.def("label_intervals(Tensor[] labels, float[] tolerances, SymInt views) -> Tensor");
  // temperature []; intervals [K, 3, L]; words [K]: 0 (positives are those in the interval), -1 (a Gaussian in it) or
  // W > 0 (overlap); relation_data [U, 2, L] int32: behind each other the L float64 of each Gaussian and the [W, 2, L]
  // words of each overlap; mask [B, B'].
  // -> loss [A] or, reduced, []; saved_lse [S, A]: shift and sum of each exponential sum, and for "sincere" the mean
  // sigmoid of each attribute; positive_counts [K, A] float64; saved_logits [.., kBlockPairs]: with save_logits on the
  // CPU the dot products of as many block pairs as kMaxSavedBytes allows. allow_tf32: CUDA may round float32 factors
  // so.
  m.def(
      "contrastive_fwd(Tensor anchors, Tensor? keys, Tensor temperature, Tensor intervals, Tensor? relation_data, "
      "int[] words, Tensor? mask, float[] weights, SymInt? anchor_offset, str positives, str denominator, "
      "bool symmetric, str reduction, bool allow_tf32, bool save_logits) -> (Tensor, Tensor, Tensor, Tensor)");
  // grad_loss as the loss -> grad_anchors [.., D], grad_keys [.., D], empty where not needed
  m.def(
      "contrastive_bwd(Tensor grad_loss, Tensor saved_lse, Tensor positive_counts, Tensor saved_logits, "
      "bool need_anchors, bool need_keys, Tensor anchors, Tensor? keys, Tensor temperature, Tensor intervals, "
      "Tensor? relation_data, int[] words, Tensor? mask, float[] weights, SymInt? anchor_offset, str positives, "
      "str denominator, bool symmetric, str reduction, bool allow_tf32) -> (Tensor, Tensor)");
  // -> losses [N], means over the keys, positive_counts [K, N]
  m.def(
      "pair_margin_fwd(Tensor anchors, Tensor? keys, Tensor intervals, Tensor? relation_data, int[] words, "
      "float[] weights, SymInt? anchor_offset, float margin, bool allow_tf32) -> (Tensor, Tensor)");
  m.def(
      "pair_margin_bwd(Tensor grad_losses, bool need_anchors, bool need_keys, Tensor anchors, Tensor? keys, "
      "Tensor intervals, Tensor? relation_data, int[] words, float[] weights, SymInt? anchor_offset, float margin, "
      "bool allow_tf32) -> (Tensor, Tensor)");
}
