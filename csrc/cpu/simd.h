// Vectors of the instruction set that this translation unit is compiled for, from the compiler's vector types.
//
// Only contrastive_kernels.cpp includes this, once per instruction set. Everything is in an anonymous namespace and no
// standard header with code is included: a template compiled for AVX-512 and merged by the linker would crash an older
// machine.

#pragma once

#include <cstdint>
#include <utility>

#if defined(__AVX512F__)
#define MMCUDA_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define MMCUDA_VECTOR_BYTES 32
#else
#define MMCUDA_VECTOR_BYTES 16
#endif

namespace mmcuda {
namespace {

template <class T>
struct Simd;

template <>
struct Simd<float> {
  typedef float Vec __attribute__((vector_size(MMCUDA_VECTOR_BYTES)));
  typedef int32_t Int __attribute__((vector_size(MMCUDA_VECTOR_BYTES)));
  typedef uint32_t Bits __attribute__((vector_size(MMCUDA_VECTOR_BYTES)));
  static constexpr float kLargest = 3.4028234663852886e38f;
  static constexpr float kMinExponent = -126.f;
  static constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  static constexpr int kMantissaBits = 23;
  // 2^f on [-1/2, 1/2], Chebyshev interpolation, relative error 1.0e-7
  static constexpr float kExp2[] = {1.00000007545489719f,   0.693147188026228781f,   0.240221074853083375f,
                                    0.0555035711421907782f, 0.00967603191832205408f, 0.00133908633646712344f};
  static constexpr int kAtanhTerms = 8;  // (1/3)^16 / 17 is below the rounding error
};

template <>
struct Simd<double> {
  typedef double Vec __attribute__((vector_size(MMCUDA_VECTOR_BYTES)));
  typedef int64_t Int __attribute__((vector_size(MMCUDA_VECTOR_BYTES)));
  typedef uint64_t Bits __attribute__((vector_size(MMCUDA_VECTOR_BYTES)));
  static constexpr double kLargest = 1.7976931348623157e308;
  static constexpr double kMinExponent = -1022.;
  static constexpr double kRound = 6755399441055744.;  // 1.5 * 2^52
  static constexpr int kMantissaBits = 52;
  // relative error 4.2e-18
  static constexpr double kExp2[] = {0.999999999999999997,    0.693147180559945309,   0.240226506959101596,
                                     0.055504108664821627,    0.00961812910758725667, 0.00133335581464064707,
                                     0.000154035304637243542, 1.52527338415567726e-5, 1.32154325359123762e-6,
                                     1.01780570877339411e-7,  7.07419429728852101e-9, 4.45581790833606449e-10};
  static constexpr int kAtanhTerms = 17;
};

template <class T>
using Vec = typename Simd<T>::Vec;
template <class T>
using Int = typename Simd<T>::Int;
template <class T>
using Bits = typename Simd<T>::Bits;  // arithmetic that may wrap around
template <class T>
constexpr int64_t kLanes = MMCUDA_VECTOR_BYTES / sizeof(T);

template <class V, class T>
inline V load(const T* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(V));
  return v;
}

template <class V, class T>
inline void store(T* to, V v) {
  __builtin_memcpy(to, &v, sizeof(V));
}

template <class T>
inline Vec<T> maximum(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}

template <class T>
inline Vec<T> minimum(Vec<T> a, Vec<T> b) {
  return a < b ? a : b;
}

// The lanes of a and b in the order of index(lane), 0 .. 2 kLanes - 1.
template <auto index, class V, int... lane>
inline V shuffle(V a, V b, std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(a, b, index(lane)...);
}

template <class T, auto index>
inline Vec<T> shuffle(Vec<T> a, Vec<T> b) {
  return shuffle<index>(a, b, std::make_integer_sequence<int, kLanes<T>>());
}

// Combines all lanes by halves: in every lane of the result if distance runs down to 1.
template <class T, int64_t distance = kLanes<T> / 2, class Combine>
inline Vec<T> combine_lanes(Vec<T> v, const Combine& combine) {
  v = combine(v, shuffle<T, [](int lane) { return lane ^ int(distance); }>(v, v));
  if constexpr (distance > 1) v = combine_lanes<T, distance / 2>(v, combine);
  return v;
}

template <class T>
inline T reduce_add(Vec<T> v) {
  return combine_lanes<T>(v, [](Vec<T> a, Vec<T> b) { return a + b; })[0];
}

template <class T>
inline T reduce_max(Vec<T> v) {
  return combine_lanes<T>(v, [](Vec<T> a, Vec<T> b) { return maximum<T>(a, b); })[0];
}

// Transposes the kLanes x kLanes matrix of the rows v, swapping off-diagonal quarters of size `distance` in turn.
template <class T, int distance = 1>
inline void transpose(Vec<T> (&v)[kLanes<T>]) {
  constexpr int kN = kLanes<T>;
#pragma GCC unroll 16
  for (int r = 0; r < kN; ++r) {
    if (r & distance) continue;
    const Vec<T> a = v[r], b = v[r + distance];
    v[r] = shuffle<T, [](int lane) { return lane & distance ? kN + lane - distance : lane; }>(a, b);
    v[r + distance] = shuffle<T, [](int lane) { return lane & distance ? kN + lane : lane + distance; }>(a, b);
  }
  if constexpr (2 * distance < kN) transpose<T, 2 * distance>(v);
}

// 2^x for x < 128 (double: 1024); 0 where that is below the smallest normal number.
template <class T>
inline Vec<T> exp2(Vec<T> x) {
  using S = Simd<T>;
  const Vec<T> rounded = x + S::kRound;
  const Vec<T> f = x - (rounded - S::kRound);
  constexpr int kDegree = sizeof(S::kExp2) / sizeof(T) - 1;
  Vec<T> p = Vec<T>{} + S::kExp2[kDegree];
#pragma GCC unroll 12
  for (int c = kDegree - 1; c >= 0; --c) p = p * f + S::kExp2[c];
  // p 2^n: n sits in the low bits of `rounded`; shifted to the exponent field, everything above n falls off.
  const Vec<T> power = (Vec<T>)((Bits<T>)p + ((Bits<T>)rounded << S::kMantissaBits));
  return x < S::kMinExponent ? Vec<T>{} : power;
}

// log2(1 + y) for 0 <= y <= 1: 2 / ln 2 * atanh(y / (2 + y)), full relative precision for small y.
template <class T>
inline Vec<T> log2_1p(Vec<T> y) {
  const Vec<T> t = y / (y + 2), square = t * t;
  Vec<T> p = {};
#pragma GCC unroll 17
  for (int n = Simd<T>::kAtanhTerms - 1; n >= 0; --n) p = p * square + T(2.8853900817779268) / (2 * n + 1);
  return p * t;
}

// log2(1 + 2^z)
template <class T>
inline Vec<T> softplus2(Vec<T> z) {
  return maximum<T>(z, Vec<T>{}) + log2_1p<T>(exp2<T>(z < 0 ? z : -z));
}

// 1 / (1 + 2^-z)
template <class T>
inline Vec<T> sigmoid2(Vec<T> z) {
  const Vec<T> y = exp2<T>(z < 0 ? z : -z);
  return (z < 0 ? y : Vec<T>{} + 1) / (1 + y);
}

}  // namespace
}  // namespace mmcuda
