// The contrastive loss family, once. No file includes torch through this header.
//
//   x_i [D], i < N         features of the anchors, the rows of S;  y_j [D], j < M  of the keys, its columns
//   s_ij                   = x_i.y_j / tau                          logit
//   allowed pairs          all (i, j); in self-contrast (Y = X) not j = i, with an anchor offset o not j = i + o
//   r_kij in [0, 1]        relation of i and j under attribute k: 1 for positives, 0 for negatives, or between
//   n_ki                   = sum_j r_kij                            how many positives
//   a_ki                   = w_k if n_ki > 0, and for the denominator "negatives" sum_j (1 - r_kij) > 1e-6; else 0
//
//   loss_i = sum_k a_ki (denominator_ki - numerator_ki)
//
//   numerator     outside the log   sum_j r_kij s_ij / n_ki
//                 inside            log(sum_j r_kij exp s_ij / n_ki)
//   denominator   all               log sum_j exp s_ij                        (the same for every k)
//                 negatives         log sum_j (1 - r_kij) exp s_ij
//                 sincere           the log of E_ki = sum_j (1 - r_kij) exp s_ij, joined by the positive itself:
//                                   loss_i = sum_k a_ki / n_ki sum_j r_kij softplus(log E_ki - s_ij)
//
// So a loss is made of exponential sums  sum_j omega_ij exp s_ij  with omega = 1, r_k or 1 - r_k, and of a linear or a
// softplus term. With g_i the incoming gradient of loss_i, G_ij = dL/ds_ij has one term for each:
//
//   exponential sum E_i in log E_i, times a_i:   g_i a_i omega_ij exp(s_ij) / E_i            (inside: with a minus)
//   linear:                                     -g_i a_ki r_kij / n_ki
//   softplus, z = log E_ki - s_ij:              -g_i a_ki r_kij / n_ki sigmoid(z), and for the negatives
//                             g_i a_ki (1 - r_kij) exp(s_ij) / E_ki * sum_p r_kip sigmoid(z_p) / n_ki
//
//   dL/dX = G Y / tau,  dL/dY = G^T X / tau,  dL/dtau = -sum_i x_i.(dL/dx_i) / tau
//
// The pair margin loss has l_ij = R d^2 + (W - R) max(0, margin - d)^2 with d = |x_i - y_j|, R = sum_k w_k r_kij and
// W = sum_k w_k; with b_ij = R - (W - R) max(0, margin - d) / d its gradient is dl_ij/dx_i = 2 b_ij (x_i - y_j).
//
// In self-contrast S is symmetric, and so is H = G + G^T. Rows are cut into blocks of kBlock; only block pairs with
// J >= I are visited and each serves its rows and its columns: N^2 D flops forward, 3 N^2 D backward, one exp a pair in
// each. A block of logits or of H exists one at a time; nothing of size N x M is ever stored. What the forward does
// keep for the backward are the dot products of the first block pairs, up to a fixed number of bytes: it saves up to
// N^2 D.
//
// Relations. Sort the known values of an attribute: the positives of a sample, equal or within a tolerance, are
// neighbours there. An item has a place in the order, and j is positive to i where first_i <= order_j <= last_i. A
// sample without a value is alone in its interval, so that its own other views are its only positives. A Gaussian
// weights the pairs in the interval by 2^-(value_i - value_j)^2; an overlap is the Jaccard index of two bit sets over
// the bits known in both.

#pragma once

#include <cstdint>

#include "relations/relation_data.h"

namespace mmcuda {

inline constexpr int64_t kBlock = 96;  // rows of a block; a multiple of every micro-tile side
inline constexpr int64_t kBlockPairs = kBlock * kBlock;
inline constexpr int kMostSets = 16;  // attributes of one loss on CUDA, whose kernels get them as arguments
inline constexpr int64_t kMaxSavedBytes = 30'000'000;  // bytes of dot products kept between forward and backward

// Exponents are taken as 2^((x_i.y_j - shift) scale), the difference first: that rounds the same in forward and
// backward however large the logits are. One constant shift serves row and column alike as long as every pair's
// exponent stays above minus this range; otherwise each row has its own shift, its maximum, found in a pass before.
inline constexpr double kMaxExponentRange = 100;

// On the CPU integers are as wide as T, so that vectors of both have equally many lanes.
template <class T>
struct IndexOf;
template <>
struct IndexOf<float> {
  using type = int32_t;
};
template <>
struct IndexOf<double> {
  using type = int64_t;
};
template <class T>
using CpuRelation = RelationData<T, typename IndexOf<T>::type>;

// Which pairs an exponential sum takes: omega = 1, r_k or 1 - r_k.
enum class Weight { kEvery, kRelated, kUnrelated };

// An exponential sum: sum_j omega_ij exp((x_i.y_j - max_i) / tau).
template <class T>
struct ExponentialSum {
  Weight weight;
  int64_t set;           // k, but for kEvery
  T* max;                // per item: the shift of its exponents
  double* sum;           // per item, forward: the sum
  const T* coefficient;  // per item, backward: what exp(..) is multiplied with
};

// What every block pair reads. Items are the rows, padded to a multiple of kBlock, and behind them, unless they are the
// same, the columns, padded likewise. D is padded to Dp. Padding holds zeros.
template <class T>
struct Batch {
  int64_t rows, columns;  // N, M
  int64_t column_begin;   // first item of the columns: 0 in self-contrast
  int64_t items;          // with padding
  int64_t anchor_offset;  // column of row 0 that is row 0 itself; -1: no pair is excluded
  bool symmetric;         // cross-contrast: columns are anchors, too
  int64_t d, dp;          // D, Dp

  const void* const* blocks;  // [items / kBlock] features of each block, [kBlock, Dp]
  const void* panels;         // [items / kCols, D, kCols] features, transposed panel by panel; null: without products
  const void* pairs;          // bfloat16 only: [items / 2, Dp, 2] features, two items interleaved
  const T* squares;           // [items] squared norms

  T scale;              // log2(e) / tau
  bool constant_shift;  // all shifts are equal
  int64_t sets;         // K
  const CpuRelation<T>* set;

  bool self() const { return column_begin == 0; }
  // Whether block pair (I, J) serves the items of J as anchors, too. On the diagonal they are those of I.
  bool serves_columns(int64_t block_i, int64_t block_j) const { return self() ? block_i != block_j : symmetric; }
};

// Sums of the forward beside the exponential ones. A block pair sums up to 96 terms in T; the many block pairs are
// summed in double, so that the error does not grow with N.
template <class T>
struct ForwardTerms {
  int64_t sums;  // exponential sums
  const ExponentialSum<T>* sum;
  const double* positive;  // [K, items] a_ki / n_ki; null without a linear term
  double* linear;          // [items] sum_k a_ki / n_ki sum_j r_kij x_i.y_j
};

// Second forward pass of the denominator "sincere".
template <class T>
struct SoftplusTerms {
  const ExponentialSum<T>* negatives;  // [K]
  const T* log_sum;                    // [K, items] log2 of the sum of negatives[k]
  const double* positive;              // [K, items] a_ki / n_ki
  double* softplus;                    // [items] sum_k a_ki / n_ki sum_j r_kij softplus(z_kij), in units of log2
  double* sigmoid;                     // [K, items] sum_j r_kij sigmoid(z_kij)
};

template <class T>
struct BackwardTerms {
  int64_t sums;
  const ExponentialSum<T>* sum;
  const T* positive;             // [K, items] g_i a_ki / n_ki of the linear or softplus term; null without one
  const T* log_sum;              // [K, items] as above, of sum[k]; null unless the term is a softplus
  T* const* gradient;            // [items / kBlock] of each block [kBlock, Dp]: H Y and H^T X are added here,
  bool grad_rows, grad_columns;  // if wanted
};

template <class T>
struct MarginTerms {
  T margin;
  const T* weights;              // [K] w_k
  double* loss;                  // forward: [items] sum_j l_ij
  const T* grad_output;          // backward: [items] incoming gradient
  T* const* gradient;            // backward: as above, -B Y and -B^T X are added here, B_ij = (g_i + g_j) b_ij,
  bool grad_rows, grad_columns;  // if wanted
  double* sum;                   // backward: [items] sum_j B_ij
};

// One instruction set's kernels for one dtype of features. A block pair is (I, J), items 96 I .. and 96 J ..
template <class T>
struct Kernels {
  int64_t pad;           // Dp is a multiple of this
  int64_t element_size;  // bytes of a packed feature
  bool pairs;            // whether batch.pairs is read

  // Writes batch.panels, pairs and squares of blocks [begin, end), all writable here, and those of batch.blocks that
  // are not in `source` itself. `source` is [count, D], its row 0 being the first item of block `first_block`.
  void (*pack)(const Batch<T>& batch, const void* source, int64_t count, int64_t first_block, int64_t begin,
               int64_t end);
  void (*count)(const Batch<T>& batch, int64_t set, int64_t block_i, int64_t block_j, double* positive_counts);
  // Where dots [kBlock, kBlock] is not null, the first of these passes leaves the dot products there and the others,
  // with the backward, read them.
  void (*maximum)(const Batch<T>& batch, int64_t sums, const ExponentialSum<T>* sum, int64_t block_i, int64_t block_j,
                  T* dots);
  void (*forward)(const Batch<T>& batch, const ForwardTerms<T>& terms, int64_t block_i, int64_t block_j, T* dots);
  void (*softplus)(const Batch<T>& batch, const SoftplusTerms<T>& terms, int64_t block_i, int64_t block_j, T* dots);
  void (*backward)(const Batch<T>& batch, const BackwardTerms<T>& terms, int64_t block_i, int64_t block_j,
                   const T* dots);
  void (*margin)(const Batch<T>& batch, const MarginTerms<T>& terms, int64_t block_i, int64_t block_j);
  void (*margin_backward)(const Batch<T>& batch, const MarginTerms<T>& terms, int64_t block_i, int64_t block_j);
};

struct InstructionSet {
  const char* name;
  Kernels<float> fp32;
  Kernels<double> fp64;
  Kernels<float> bf16;  // computes in fp32 where there are no bfloat16 dot products
};

}  // namespace mmcuda
