// Every instruction that C++ has no name for, behind a function: matrix products, ldmatrix, cp.async, conversions,
// approximate exponentials, checked loads and stores, and the launch itself. This is the only file with two bodies: PTX
// under nvcc, calls of csrc/simt under a host compiler with -DMMCUDA_SIMT, where the same kernels run on the CPU.
//
// Fragments of d[16, 8] += a[16, K] b[K, 8], with g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix Fragments"):
//
//   16-bit, K = 16   a[0] = A[g][2t, 2t+1]      a[1] = A[g+8][2t, 2t+1]      (the lower index in the lower half)
//                    a[2] = A[g][2t+8, 2t+9]    a[3] = A[g+8][2t+8, 2t+9]
//                    b[0] = B[2t, 2t+1][g]      b[1] = B[2t+8, 2t+9][g]
//   tf32, K = 8      a[0] = A[g][t]             a[1] = A[g+8][t]             a[2] = A[g][t+4]   a[3] = A[g+8][t+4]
//                    b[0] = B[t][g]             b[1] = B[t+4][g]
//   both             d[0], d[1] = D[g][2t, 2t+1]                         d[2], d[3] = D[g+8][2t, 2t+1]
//
// ldmatrix loads 8 x 8 matrices of 16-bit elements, rows of 16 bytes: lanes 8m .. 8m+7 pass the addresses of the rows
// of matrix m, and r[m] = M[g][2t, 2t+1], or transposed M[2t, 2t+1][g]. So a 16-bit A fragment is four matrices in the
// order (rows 0-7, k 0-7), (rows 8-15, k 0-7), (rows 0-7, k 8-15), (rows 8-15, k 8-15); a B fragment is two matrices of
// B^T in memory [8, K], k 0-7 and k 8-15, or of B in memory [K, 8] transposed. A row is as well four 32-bit elements,
// r[m] = M[g][t], which is the order of tf32.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef MMCUDA_SIMT
#include "../simt/simt.h"
#endif

namespace mmcuda {

// ---- element types

struct alignas(2) bfloat16 {
  uint16_t bits;
};
struct alignas(2) half16 {
  uint16_t bits;
};
struct tf32;  // names the product of 32-bit elements of which the tensor core reads the upper 19 bits

#ifndef MMCUDA_SIMT
#define MMCUDA_DYNAMIC_SHARED(name)                                       \
  extern __shared__ __align__(128) unsigned char mmcuda_dynamic_shared[]; \
  unsigned char* const name = mmcuda_dynamic_shared
#define MMCUDA_WRAPPER __device__ __forceinline__

// ======================================================= nvcc =======================================================

// ---- conversions, to nearest even

MMCUDA_WRAPPER float to_float(float x) { return x; }
MMCUDA_WRAPPER float to_float(bfloat16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
MMCUDA_WRAPPER float to_float(half16 x) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x.bits));
  return f;
}

template <class E>
MMCUDA_WRAPPER E from_float(float f) {
  if constexpr (std::is_same_v<E, bfloat16>) {
    bfloat16 x;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(x.bits) : "f"(f));
    return x;
  } else if constexpr (std::is_same_v<E, half16>) {
    half16 x;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(x.bits) : "f"(f));
    return x;
  } else {
    return E(f);
  }
}

// Two 16-bit values in one register.
template <class E>
MMCUDA_WRAPPER uint32_t pack(float low, float high) {
  static_assert(std::is_same_v<E, bfloat16> || std::is_same_v<E, half16>);
  uint32_t r;
  if constexpr (std::is_same_v<E, bfloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  }
  return r;
}

// To nearest, ties away from zero; the lower 13 bits are zero.
MMCUDA_WRAPPER uint32_t to_tf32(float f) {
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(f));
  return r;
}

// ---- approximations: about 2 units in the last place; subnormals are zero

MMCUDA_WRAPPER float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
MMCUDA_WRAPPER float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- the whole warp together

// d += a b; E is bfloat16 or half16 (K = 16) or tf32 (K = 8).
template <class E>
MMCUDA_WRAPPER void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  static_assert(std::is_same_v<E, bfloat16> || std::is_same_v<E, half16> || std::is_same_v<E, tf32>);
  if constexpr (std::is_same_v<E, bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else if constexpr (std::is_same_v<E, half16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

MMCUDA_WRAPPER uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// Every lane passes the 16-byte aligned address of a row, for x2 lanes 0 .. 15.
MMCUDA_WRAPPER void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
MMCUDA_WRAPPER void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
MMCUDA_WRAPPER void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
MMCUDA_WRAPPER void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

// ---- copies from global to shared memory behind the thread's back; zeros if not valid, the source is then not read

MMCUDA_WRAPPER void cp_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
MMCUDA_WRAPPER void cp_async_8(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 8 : 0)
               : "memory");
}
MMCUDA_WRAPPER void cp_async_4(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 4 : 0)
               : "memory");
}
// Closes a group; a group may be empty.
MMCUDA_WRAPPER void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most the N youngest groups of this thread are pending. Other threads need a barrier behind it.
template <int N>
MMCUDA_WRAPPER void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- loads and stores of V = float, float2, float4, uint2, uint4, .. at an address aligned to V; the CPU checks them

template <class V>
MMCUDA_WRAPPER V load_shared(const void* p) {
  return *static_cast<const V*>(p);
}
template <class V>
MMCUDA_WRAPPER void store_shared(void* p, const V& value) {
  *static_cast<V*>(p) = value;
}
template <class V>
MMCUDA_WRAPPER V load_global(const void* p) {
  return *static_cast<const V*>(p);
}
// In one instruction: the compiler may take an assignment of a struct apart.
template <class V>
MMCUDA_WRAPPER void store_global(void* p, const V& value) {
  if constexpr (sizeof(V) == 16) {
    uint32_t r[4];
    memcpy(r, &value, 16);
    asm volatile("st.global.v4.b32 [%0], {%1,%2,%3,%4};" ::"l"(__cvta_generic_to_global(p)), "r"(r[0]), "r"(r[1]),
                 "r"(r[2]), "r"(r[3])
                 : "memory");
  } else if constexpr (sizeof(V) == 8) {
    uint32_t r[2];
    memcpy(r, &value, 8);
    asm volatile("st.global.v2.b32 [%0], {%1,%2};" ::"l"(__cvta_generic_to_global(p)), "r"(r[0]), "r"(r[1]) : "memory");
  } else {
    *static_cast<V*>(p) = value;
  }
}

// ---- launch<kernel>(..): null or the error's text. Nothing is waited for.

inline const char* text_of(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();  // it is told to our caller; the next one to ask must not take it for its own
  return cudaGetErrorString(error);
}

// Lets the kernel have as much dynamic shared memory as the device gives a block: once for each kernel and device,
// since the attribute is the process's, and a smaller value of one host thread would fail another's launch. All of it,
// since no kernel has shared memory of a fixed size (benchmarks/gpu/static holds that).
template <auto kKernel>
cudaError_t allow_shared_memory() {
  static std::atomic<uint64_t> allowed{0};  // bit d: on device d
  int device = 0, most = 0;
  if (cudaError_t error = cudaGetDevice(&device)) return error;
  const uint64_t bit = device < 64 ? uint64_t{1} << device : 0;
  if (allowed.load(std::memory_order_acquire) & bit) return cudaSuccess;
  if (cudaError_t error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)) return error;
  if (cudaError_t error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most)) {
    return error;
  }
  allowed.fetch_or(bit, std::memory_order_release);
  return cudaSuccess;
}

// cudaLaunchKernel returns its own error; cudaGetLastError behind <<<>>> would return any earlier one of the process.
template <class... Parameters>
cudaError_t launch_kernel(void (*kernel)(Parameters...), dim3 grid, unsigned threads, size_t shared_bytes, void* stream,
                          std::type_identity_t<Parameters>... parameters) {
  void* pointers[] = {const_cast<void*>(static_cast<const void*>(&parameters))...};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, threads, pointers, shared_bytes,
                          static_cast<cudaStream_t>(stream));
}

template <auto kKernel, class... Args>
const char* launch(dim3 grid, unsigned threads, size_t shared_bytes, void* stream, const Args&... args) {
  if (shared_bytes > 48 * 1024) {  // above this the device wants to be asked
    if (const char* error = text_of(allow_shared_memory<kKernel>())) return error;
  }
  return text_of(launch_kernel(kKernel, grid, threads, shared_bytes, stream, args...));
}

#undef MMCUDA_WRAPPER

#else

// ======================================================= simt =======================================================

inline float to_float(float x) { return x; }
inline float to_float(bfloat16 x) { return simt::bfloat16_to_float(x.bits); }
inline float to_float(half16 x) { return simt::half_to_float(x.bits); }

template <class E>
E from_float(float f) {
  if constexpr (std::is_same_v<E, bfloat16>) {
    return {simt::float_to_bfloat16(f)};
  } else if constexpr (std::is_same_v<E, half16>) {
    return {simt::float_to_half(f)};
  } else {
    return E(f);
  }
}

template <class E>
uint32_t pack(float low, float high) {
  static_assert(std::is_same_v<E, bfloat16> || std::is_same_v<E, half16>);
  return from_float<E>(low).bits | uint32_t(from_float<E>(high).bits) << 16;
}

inline uint32_t to_tf32(float f) { return simt::float_to_tf32(f); }
inline float exp2_approx(float x) { return simt::flush(exp2f(simt::flush(x))); }
inline float log2_approx(float x) { return log2f(simt::flush(x)); }

template <class E>
void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], MMCUDA_SITE) {
  static_assert(std::is_same_v<E, bfloat16> || std::is_same_v<E, half16> || std::is_same_v<E, tf32>);
  constexpr simt::Element kElement = std::is_same_v<E, bfloat16> ? simt::Element::kBfloat16
                                     : std::is_same_v<E, half16> ? simt::Element::kHalf
                                                                 : simt::Element::kTf32;
  simt::mma(kElement, d, a, b, site);
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, MMCUDA_SITE) { simt::ldmatrix(r, 4, false, row, site); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, MMCUDA_SITE) { simt::ldmatrix(r, 4, true, row, site); }
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, MMCUDA_SITE) { simt::ldmatrix(r, 2, false, row, site); }
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, MMCUDA_SITE) { simt::ldmatrix(r, 2, true, row, site); }

inline void cp_async_16(void* shared, const void* global, bool valid, MMCUDA_SITE) {
  simt::cp_async<16>(shared, global, valid, site);
}
inline void cp_async_8(void* shared, const void* global, bool valid, MMCUDA_SITE) {
  simt::cp_async<8>(shared, global, valid, site);
}
inline void cp_async_4(void* shared, const void* global, bool valid, MMCUDA_SITE) {
  simt::cp_async<4>(shared, global, valid, site);
}
inline void cp_async_commit() { simt::cp_async_commit(); }
template <int N>
void cp_async_wait() {
  simt::cp_async_wait(N);
}

template <class V>
V load_shared(const void* p, MMCUDA_SITE) {
  simt::check_shared(p, sizeof(V), alignof(V), "load_shared", site);
  return *static_cast<const V*>(p);
}
template <class V>
void store_shared(void* p, const V& value, MMCUDA_SITE) {
  simt::check_shared(p, sizeof(V), alignof(V), "store_shared", site);
  *static_cast<V*>(p) = value;
}
template <class V>
V load_global(const void* p, MMCUDA_SITE) {
  simt::check_global(p, sizeof(V), alignof(V), "load_global", site);
  return *static_cast<const V*>(p);
}
template <class V>
void store_global(void* p, const V& value, MMCUDA_SITE) {
  simt::check_global(p, sizeof(V), alignof(V), "store_global", site);
  *static_cast<V*>(p) = value;
}

// Runs the grid at once. The stream means nothing.
template <auto kKernel, class... Args>
const char* launch(dim3 grid, unsigned threads, size_t shared_bytes, void*, const Args&... args) {
  return simt::launch(__PRETTY_FUNCTION__, grid, threads, shared_bytes, [&] { kKernel(args...); });
}

#endif

}  // namespace mmcuda
