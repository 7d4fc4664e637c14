// The operators Python can call (torch.ops.mmcuda.*). Shapes: N = B * views rows, K label sets, D features.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(mmcuda, m) {
  // labels: K tensors [B], int64 (-1 = missing) or float64 (NaN = missing) -> [K, 3, B] int32: rank, first, last
  m.def("label_ranks(Tensor[] labels, float[] tolerances) -> Tensor");
  // features [N, D], ranks [K, 3, B], mask [B, B] -> losses [N], statistics [2, N]: shift and sum of a row's
  // exponentials
  m.def(
      "supcon_fwd(Tensor features, Tensor ranks, float[] weights, Tensor? mask, float temperature) -> (Tensor, "
      "Tensor)");
  // grad_losses [N] -> grad_features [N, D]
  m.def(
      "supcon_bwd(Tensor grad_losses, Tensor features, Tensor statistics, Tensor ranks, float[] weights, Tensor? mask,"
      " float temperature) -> Tensor");
}
