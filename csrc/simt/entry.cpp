// The launchers as C functions, for benchmarks/gpu/launchers/compare.py. Compiled with the kernels into one library,
// under simt or by nvcc.

#include "../cuda/launch.h"

using mmcuda::ContrastiveSettings;
using mmcuda::Inputs;

extern "C" {

size_t check_inputs_size() { return sizeof(Inputs); }

size_t check_contrastive_workspace(const Inputs& inputs, const ContrastiveSettings& settings, bool backward) {
  return backward ? contrastive_backward_workspace(inputs, settings) : contrastive_forward_workspace(inputs, settings);
}
const char* check_contrastive_forward(const Inputs& inputs, const ContrastiveSettings& settings, void* losses,
                                      void* saved_lse, double* positive_counts) {
  return contrastive_forward(inputs, settings, losses, saved_lse, positive_counts);
}
const char* check_contrastive_backward(const Inputs& inputs, const ContrastiveSettings& settings,
                                       const void* grad_losses, const void* saved_lse, const double* positive_counts,
                                       void* grad_rows, void* grad_columns) {
  return contrastive_backward(inputs, settings, grad_losses, saved_lse, positive_counts, grad_rows, grad_columns);
}

size_t check_pair_margin_workspace(const Inputs& inputs, bool backward) {
  return backward ? pair_margin_backward_workspace(inputs) : pair_margin_forward_workspace(inputs);
}
const char* check_pair_margin_forward(const Inputs& inputs, double margin, void* losses, double* positive_counts) {
  return pair_margin_forward(inputs, margin, losses, positive_counts);
}
const char* check_pair_margin_backward(const Inputs& inputs, double margin, const void* grad_losses, void* grad_rows,
                                       void* grad_columns) {
  return pair_margin_backward(inputs, margin, grad_losses, grad_rows, grad_columns);
}
}
