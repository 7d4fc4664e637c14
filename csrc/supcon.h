// The supervised contrastive loss, once. No file includes torch through this header.
//
//   x_i [D]        feature of row i, i = sample * views + view, N rows in all
//   s_ij           = x_i.x_j / tau                          logit
//   lse_i          = log sum_{j != i} exp s_ij
//   r_k(i, j)      = 1 if i and j are positives under label set k, else 0
//   n_ki           = sum_{j != i} r_k(i, j)                 number of positives
//   W_ij           = sum_k w_k r_k(i, j) / n_ki             (0 where n_ki = 0)
//   Omega_i        = sum_k w_k [n_ki > 0]
//
//   loss_i         = Omega_i lse_i - sum_j W_ij s_ij
//
// With g_i the incoming gradient of loss_i,
//
//   G_ij = dL/ds_ij = g_i (Omega_i exp(s_ij - lse_i) - W_ij)
//   dL/dX           = (G + G^T) X / tau
//
// S is symmetric and so is H = G + G^T. Rows are cut into blocks of kBlock; only block pairs with J >= I are visited
// and each serves its rows and its columns: N^2 D flops forward, 3 N^2 D backward, one exp a pair in each. H exists one
// block at a time.
//
// A label relation is an interval of ranks. Sort the known values of a label set: the positives of a sample, equal or
// within a tolerance, are neighbours there. Sample b has a rank, and a is positive to b where
// first_b <= rank_a <= last_b. A sample without a value is alone in its interval, so that its own other views are its
// only positives. n_ki follows from the interval's length, before any tile is computed.

#pragma once

#include <cstdint>

namespace mmcuda {

inline constexpr int64_t kBlock = 96;  // rows of a block; a multiple of every micro-tile side

// Exponents are taken as 2^((x_i.x_j - shift) scale), the difference first: that rounds the same in forward and
// backward however large the logits are. One constant shift serves row and column alike as long as every pair's
// exponent stays above minus this range; otherwise each row keeps its own running maximum.
inline constexpr double kMaxExponentRange = 80;

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

// What every block pair reads. N is padded to Np, a multiple of kBlock; D to Dp. Padding holds zeros.
template <class T>
struct Batch {
  using Index = typename IndexOf<T>::type;  // as wide as T, so that vectors of both have equally many lanes

  int64_t n;        // N
  int64_t np;       // Np
  int64_t d;        // D
  int64_t dp;       // Dp
  const T* rows;    // [Np, Dp] features
  const T* panels;  // [Np / kCols, D, kCols] features, transposed panel by panel
  T scale;          // log2(e) / tau
  T shift;          // constant shift: an upper bound of the dot products
  bool constant_shift;

  int64_t sets;         // K
  const Index* rank;    // [K, Np]
  const Index* first;   // [K, Np]
  const Index* last;    // [K, Np]
  const T* positive;    // [K, Np] weight of one positive of row i: w_k / n_ki, in the backward times g_i
  const T* mask;        // [B, B] dense relation or null, with
  int64_t samples;      //   B
  const Index* sample;  //   [Np] sample of each row
  const T* masked;      //   [Np] weight of its entries: 1 / sum of row i, in the backward times g_i
};

// Row statistics of the forward, each [Np]. A block pair sums up to 96 terms in T; the many block pairs are summed in
// double, so that the error does not grow with N.
template <class T>
struct RowStatistics {
  T* max;            // shift of the row's exponents: the constant shift, or the largest x_i.x_j so far
  double* sum;       // sum_j exp((x_i.x_j - max_i) / tau)
  double* positive;  // sum_j W_ij x_i.x_j
};

// What the backward reads of each row, each [Np].
template <class T>
struct RowGradients {
  const T* softmax;  // g_i Omega_i / sum_i: times exp((x_i.x_j - max_i) / tau) it is g_i Omega_i softmax_ij
  const T* max;      // as in the forward
};

// One instruction set's kernels.
template <class T>
struct Kernels {
  int64_t cols;  // kCols, width of a panel
  int64_t pad;   // Dp is a multiple of this

  // Copies rows [begin, end) of features [N, D] into batch.rows and panels; begin and end are multiples of kBlock.
  void (*pack)(const Batch<T>& batch, const T* features, int64_t begin, int64_t end, T* rows, T* panels);
  // Adds block pair (I, J), I <= J, to the statistics of the rows of both.
  void (*forward)(const Batch<T>& batch, int64_t block_i, int64_t block_j, const RowStatistics<T>& statistics);
  // Adds H X of block pair (I, J), I <= J, to gradient [Np, Dp].
  void (*backward)(const Batch<T>& batch, int64_t block_i, int64_t block_j, const RowGradients<T>& rows, T* gradient);
};

struct InstructionSet {
  const char* name;
  Kernels<float> fp32;
  Kernels<double> fp64;
};

}  // namespace mmcuda
