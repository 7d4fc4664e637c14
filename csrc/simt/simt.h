// The kernels' own source on the CPU, for tests: under -DMMCUDA_SIMT mma.cuh includes this file, a host compiler takes
// the kernels as C++, and launch() runs the grid, one block after the other, every thread of a block as a fiber.
//
// A fiber runs until it waits: at a collective of its warp for the lanes that the mask names, at __syncthreads for the
// block. Then the next lane of the warp runs, then the next warp, in their natural order or in one drawn from the seed
// (environment variable MMCUDA_SIMT_SEED). So a warp runs as far ahead of the others as barriers allow, and as the
// fibers of a block share one thread of the CPU, a run is repeatable.
//
// What hardware may leave undefined ends here in one message, with kernel, block, thread and source line, and an abort:
// lanes that wait for one another in different places, masks without the caller, threads that return before a barrier,
// shuffles from lanes outside the mask, misaligned addresses, shared memory behind its end, wrong launches.
// Shared memory holds NaN of every type before it is written, and so does the target of a cp.async until it is waited
// for. Under -fsanitize=address global memory is bounded, too; under -fsanitize=thread every fiber counts as a thread,
// ordered by __syncthreads and __syncwarp only, so that a missing barrier is reported as a race; blocks are not
// ordered.
//
// Build with -fno-strict-aliasing: kernels look at shared memory through pointers of many types.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

// ---- the types of CUDA

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace mmcuda::simt {

using Site = std::source_location;  // where the kernel called

struct Thread {
  dim3 index;  // threadIdx
  unsigned lane;
};
struct Block {
  dim3 index, grid, threads;
  unsigned char* shared;
  size_t shared_bytes;
};
extern const Thread* thread;  // the one that runs
extern Block block;

[[noreturn]] void fail_access(const char* what, const void* p, size_t bytes, size_t alignment, const Site& site);
void syncthreads(const Site& site);
void syncwarp(uint32_t mask, const Site& site);
uint32_t ballot(uint32_t mask, bool predicate, const char* name, const Site& site);
// The value of lane `source`, or the lane's own if there is no such lane.
uint64_t shuffle(uint32_t mask, uint64_t value, unsigned source, const char* name, const Site& site);

enum class Element { kBfloat16, kHalf, kTf32 };
void mma(Element element, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Site& site);
void exchange_matrices(uint32_t* r, int matrices, bool transposed, const uint32_t (&row)[4], const Site& site);

struct Copy {
  void* target;
  size_t bytes;
  unsigned char data[16];
};
void add_copy(const Copy& copy);
void cp_async_commit();
const Copy* next_landing(int pending);  // the next copy that lands where `pending` groups may remain, or null

const char* run(const char* signature, dim3 grid, unsigned threads, size_t shared_bytes, void (*body)(const void*),
                const void* context);

template <class F>
const char* launch(const char* signature, dim3 grid, unsigned threads, size_t shared_bytes, const F& kernel) {
  return run(signature, grid, threads, shared_bytes, [](const void* f) { (*static_cast<const F*>(f))(); }, &kernel);
}

// ---- memory. What reads and writes it is inline, so that sanitizers see it as the kernel's.

inline void check_shared(const void* p, size_t bytes, size_t alignment, const char* what, const Site& site) {
  const size_t offset = static_cast<const unsigned char*>(p) - block.shared;
  if (offset >= block.shared_bytes || block.shared_bytes - offset < bytes || offset % alignment) {
    fail_access(what, p, bytes, alignment, site);
  }
}
inline void check_global(const void* p, size_t bytes, size_t alignment, const char* what, const Site& site) {
  const size_t offset = static_cast<const unsigned char*>(p) - block.shared;
  if (!p || offset < block.shared_bytes || reinterpret_cast<uintptr_t>(p) % alignment) {
    fail_access(what, p, bytes, alignment, site);
  }
}

template <size_t kBytes>
void cp_async(void* shared, const void* global, bool valid, const Site& site) {
  check_shared(shared, kBytes, kBytes, "cp.async to shared memory", site);
  Copy copy{shared, kBytes, {}};
  if (valid) {
    check_global(global, kBytes, kBytes, "cp.async from global memory", site);
    std::memcpy(copy.data, global, kBytes);
  }
  std::memset(shared, 0xff, kBytes);  // NaN until somebody waits
  add_copy(copy);
}
inline void cp_async_wait(int pending) {
  while (const Copy* copy = next_landing(pending)) {
    std::memcpy(copy->target, copy->data, copy->bytes);
  }
}

inline void ldmatrix(uint32_t* r, int matrices, bool transposed, const void* address, const Site& site) {
  uint32_t row[4] = {};
  if (thread->lane < 8u * matrices) {
    check_shared(address, 16, 16, "ldmatrix", site);
    std::memcpy(row, address, 16);
  }
  exchange_matrices(r, matrices, transposed, row, site);
}

// ---- numbers

template <class To, class From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

inline float flush(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.f, x) : x; }

inline float bfloat16_to_float(uint16_t bits) { return bit_cast<float>(uint32_t(bits) << 16); }
inline uint16_t float_to_bfloat16(float f) {
  const uint32_t u = bit_cast<uint32_t>(f);
  return f != f ? 0x7fff : static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

inline float half_to_float(uint16_t bits) {
  const uint32_t magnitude = uint32_t(bits & 0x7fff) << 13;
  const uint32_t u = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);  // other bias; exact if subnormal, too
  const uint32_t special = magnitude >= 0x7c00u << 13 ? 0x7f800000 : 0;          // infinity or NaN
  return bit_cast<float>(u | special | uint32_t(bits & 0x8000) << 16);
}
inline uint16_t float_to_half(float f) {
  const uint32_t u = bit_cast<uint32_t>(f), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
  if (f != f) {
    return 0x7fff;
  }
  if (magnitude >= 0x477ff000) {  // 65520 and more
    return static_cast<uint16_t>(sign | 0x7c00);
  }
  if (magnitude < 0x38800000) {  // subnormal: the addition rounds to multiples of 2^-24
    return static_cast<uint16_t>(sign | (bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000));
  }
  return static_cast<uint16_t>(sign | ((magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

// To nearest, ties away from zero.
inline uint32_t float_to_tf32(float f) {
  const uint32_t u = bit_cast<uint32_t>(f);
  return std::isfinite(f) ? (u + 0x1000) & 0xffffe000 : f != f ? 0x7fffffff : u;
}

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

template <class U, class T>
T add_by_exchange(T* p, T value) {
  auto* word = reinterpret_cast<U*>(p);
  U before = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(word, &before, bit_cast<U>(bit_cast<T>(before) + value), false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
  return bit_cast<T>(before);
}

}  // namespace mmcuda::simt

// ---- the functions of CUDA

#define threadIdx (mmcuda::simt::thread->index)
#define blockIdx (mmcuda::simt::block.index)
#define blockDim (mmcuda::simt::block.threads)
#define gridDim (mmcuda::simt::block.grid)
#define MMCUDA_DYNAMIC_SHARED(name) unsigned char* const name = mmcuda::simt::block.shared
#define MMCUDA_SITE mmcuda::simt::Site site = mmcuda::simt::Site::current()  // the last argument, from the compiler

inline void __syncthreads(MMCUDA_SITE) { mmcuda::simt::syncthreads(site); }
inline void __syncwarp(uint32_t mask = ~0u, MMCUDA_SITE) { mmcuda::simt::syncwarp(mask, site); }

inline uint32_t __ballot_sync(uint32_t mask, int predicate, MMCUDA_SITE) {
  return mmcuda::simt::ballot(mask, predicate, "__ballot_sync", site);
}
inline int __any_sync(uint32_t mask, int predicate, MMCUDA_SITE) {
  return mmcuda::simt::ballot(mask, predicate, "__any_sync", site) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, MMCUDA_SITE) {
  return mmcuda::simt::ballot(mask, predicate, "__all_sync", site) == mask;
}

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, MMCUDA_SITE) {
  using namespace mmcuda::simt;
  return from_bits<T>(shuffle(mask, to_bits(value), source & 31, "__shfl_sync", site));
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, MMCUDA_SITE) {
  using namespace mmcuda::simt;
  return from_bits<T>(shuffle(mask, to_bits(value), thread->lane ^ bits, "__shfl_xor_sync", site));
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned distance, MMCUDA_SITE) {
  using namespace mmcuda::simt;
  return from_bits<T>(shuffle(mask, to_bits(value), thread->lane + distance, "__shfl_down_sync", site));
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned distance, MMCUDA_SITE) {
  using namespace mmcuda::simt;
  return from_bits<T>(shuffle(mask, to_bits(value), thread->lane - distance, "__shfl_up_sync", site));
}

inline int atomicAdd(int* p, int value) { return __atomic_fetch_add(p, value, __ATOMIC_RELAXED); }
inline unsigned atomicAdd(unsigned* p, unsigned value) { return __atomic_fetch_add(p, value, __ATOMIC_RELAXED); }
inline float atomicAdd(float* p, float value) { return mmcuda::simt::add_by_exchange<uint32_t>(p, value); }
inline double atomicAdd(double* p, double value) { return mmcuda::simt::add_by_exchange<uint64_t>(p, value); }

inline float __uint_as_float(uint32_t bits) { return mmcuda::simt::bit_cast<float>(bits); }
inline uint32_t __float_as_uint(float f) { return mmcuda::simt::bit_cast<uint32_t>(f); }
inline float __int_as_float(int bits) { return mmcuda::simt::bit_cast<float>(bits); }
inline int __float_as_int(float f) { return mmcuda::simt::bit_cast<int>(f); }
inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(bits) : 32; }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}
