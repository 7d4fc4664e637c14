// What the kernels read: sides, attributes, terms, per-item arrays. The maths is in ../contrastive.h.
//
// Items are the rows and, in cross-contrast, the columns behind them: L = N or N + M. Arrays "per item" have one value
// for each, in that order, without padding. Anchors are the first A of them: N, or both ways N + M.

#pragma once

#include <climits>
#include <cstdint>

#include "../contrastive.h"
#include "mma.cuh"

namespace mmcuda {

inline constexpr int kMaxTerms = 8;  // sums over pairs that one pass of the forward takes; more take several passes
inline constexpr unsigned kWholeWarp = 0xffffffff;

// Rows or columns: features [count, D] whose rows begin at multiples of 16 bytes and hold zeros behind D up to one.
struct Side {
  const unsigned char* features;
  int64_t stride;  // bytes from row to row
  int64_t bytes;   // of a row that hold features, a multiple of 16
  int count;
  int first;  // item of row 0
};

template <class T>
using DeviceRelation = RelationData<T, int32_t>;

// What a kernel before found out about the features, so that nobody has to ask the device.
struct DeviceScalars {
  double temperature;
  double shift;          // no dot product is larger; NaN and infinite features aside
  double scale;          // log2(e) / temperature
  double gradient_unit;  // H is multiplied with this power of two, so that its values suit 16 bits
  int constant_shift;    // all exponents have the shift above
  int rows_finite, columns_finite;
  int overflow;  // logits do
};

// A kernel may be launched for one of two kinds of shifts; it then returns at once where the scalars say the other.
enum class ShiftMode { kAlways, kConstantShift, kOwnShifts };

__device__ __forceinline__ bool wanted(ShiftMode mode, const DeviceScalars& scalars) {
  return mode == ShiftMode::kAlways || (mode == ShiftMode::kConstantShift) == (scalars.constant_shift != 0);
}

// The pair of row i and column i + distance is no pair; kNoSelf where every pair is one.
inline constexpr int kNoSelf = INT_MAX;

// A term of a loss: sum_j omega_ij f(x_i.y_j) for every anchor i.
enum class Function : uint8_t {
  kExponential,  // exp((x_i.y_j - shift_i) / tau)
  kLinear,       // x_i.y_j
  kCount,        // 1
  kMaximum,      // x_i.y_j, and instead of the sum the maximum over omega_ij > 0
  kSoftplus,     // softplus(z_ij) in units of log2, z_ij = log2 E_i - (x_i.y_j - shift_i) / tau
  kSigmoid       // sigmoid(z_ij)
};

struct Term {
  Function function;
  Weight weight;
  uint8_t set;  // k; for exponentials with own shifts and softplus also which
  uint8_t sum;  // exponential sum whose shift is taken
};

inline constexpr int kPush = 1 << 15;  // of the pair margin loss: (margin - d) / d is at most this in 16 bits

// The pair margin loss, of which forward and backward need the same.
template <class T>
struct MarginArguments {
  T margin;
  T weights[kMostSets];
  const T* squares;      // per item
  const T* grad_output;  // per item, backward: incoming gradient, 0 of columns
};

template <class T>
__device__ __forceinline__ constexpr T lowest() {
  return sizeof(T) == 4 ? T(-3.402823466e38f) : T(-1.7976931348623157e308);
}

__device__ __forceinline__ float exp2_of(float x) { return exp2_approx(x); }
__device__ __forceinline__ double exp2_of(double x) { return exp2(x); }

__device__ __forceinline__ float multiply_add(float x, float y, float z) { return fmaf(x, y, z); }
__device__ __forceinline__ double multiply_add(double x, double y, double z) { return fma(x, y, z); }

// log2(1 + 2^z)
template <class T>
__device__ __forceinline__ T softplus2(T z) {
  const T y = exp2_of(z < 0 ? z : -z);
  return (z > 0 ? z : T(0)) + T(1.4426950408889634) * (sizeof(T) == 4 ? T(log1pf(float(y))) : T(log1p(double(y))));
}

// 1 / (1 + 2^-z)
template <class T>
__device__ __forceinline__ T sigmoid2(T z) {
  const T y = exp2_of(z < 0 ? z : -z);
  return (z < 0 ? y : T(1)) / (1 + y);
}

__device__ __forceinline__ int lane_id() { return static_cast<int>(threadIdx.x & 31); }
__device__ __forceinline__ int warp_id() { return static_cast<int>(threadIdx.x >> 5); }

}  // namespace mmcuda
