// Rates that this GPU's units reach, each by itself: the ceilings that a kernel's time is held against. Prints JSON.
//
//   nvcc -O3 -std=c++20 -gencode arch=compute_90,code=sm_90 ceilings.cu -o ceilings && ./ceilings
//
// Each rate is the median of five measurements of some 20 ms, after as long a warm-up. Exit code 77 without a device.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

constexpr int kNoDevice = 77;
constexpr int kRounds = 2048, kChains = 8;  // chains of instructions that do not depend on each other
constexpr int kThreads = 128, kBlocksPerSm = 4;

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("{\"error\": \"%s: %s\"}\n", what, cudaGetErrorString(error));
  std::exit(error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ? kNoDevice : 1);
}

// Registers full of changing bits, of numbers of moderate size: operands of zeros need less power, and run faster.
__device__ uint32_t noise(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ x >> 16;
}
__device__ uint32_t bfloat16_pair(uint32_t seed) { return (noise(seed) & 0x807f807fu) | 0x3f003f00u; }  // +-[0.5, 1)
__device__ uint32_t tf32_number(uint32_t seed) { return (noise(seed) & 0x807fe000u) | 0x3f000000u; }

// Clocks and nanoseconds of one block, for the frequency under this load.
struct Elapsed {
  unsigned long long clocks, nanoseconds;
};
__device__ unsigned long long nanoseconds() {
  unsigned long long t;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
  return t;
}

template <bool kTf32>
__global__ void mma_kernel(float* out, Elapsed* elapsed, uint32_t seed) {
  const unsigned long long clock = clock64(), time = nanoseconds();
  float d[kChains][4] = {};
  uint32_t a[2][4], b[2][2];
  for (int k = 0; k < 2; ++k) {
    for (int i = 0; i < 4; ++i) {
      const uint32_t s = seed + 97 * threadIdx.x + 11 * k + i;
      a[k][i] = kTf32 ? tf32_number(s) : bfloat16_pair(s);
      if (i < 2) b[k][i] = kTf32 ? tf32_number(s + 7) : bfloat16_pair(s + 7);
    }
  }
  for (int r = 0; r < kRounds; ++r) {
#pragma unroll
    for (int c = 0; c < kChains; ++c) {
      const int k = c % 2;
      if constexpr (kTf32) {
        asm volatile(
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
            : "+f"(d[c][0]), "+f"(d[c][1]), "+f"(d[c][2]), "+f"(d[c][3])
            : "r"(a[k][0]), "r"(a[k][1]), "r"(a[k][2]), "r"(a[k][3]), "r"(b[k][0]), "r"(b[k][1]));
      } else {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
            : "+f"(d[c][0]), "+f"(d[c][1]), "+f"(d[c][2]), "+f"(d[c][3])
            : "r"(a[k][0]), "r"(a[k][1]), "r"(a[k][2]), "r"(a[k][3]), "r"(b[k][0]), "r"(b[k][1]));
      }
    }
  }
  float sum = 0;
  for (int c = 0; c < kChains; ++c) sum += d[c][0] + d[c][1] + d[c][2] + d[c][3];
  if (sum == 12345.f) *out = sum;
  if (blockIdx.x == 0 && threadIdx.x == 0) *elapsed = {clock64() - clock, nanoseconds() - time};
}

__global__ void exp2_kernel(float* out, float seed) {
  float x[kChains];
  for (int c = 0; c < kChains; ++c) x[c] = seed + 0.01f * static_cast<float>(c + threadIdx.x % 7);
  for (int r = 0; r < kRounds; ++r) {
#pragma unroll
    for (int c = 0; c < kChains; ++c) {  // x -> 2^-x stays near 0.64; the sign is part of the instruction
      const float minus = -x[c];
      asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(x[c]) : "f"(minus));
    }
  }
  float sum = 0;
  for (int c = 0; c < kChains; ++c) sum += x[c];
  if (sum == 12345.f) *out = sum;
}

// Every block reads all of a buffer that fits the L2, past the L1, each beginning elsewhere.
__global__ void l2_kernel(const uint4* data, int64_t count, uint32_t* out) {
  constexpr int kLoads = 8;
  uint32_t sum = 0;
  const int64_t begin = count / gridDim.x * blockIdx.x;
  for (int64_t i = threadIdx.x; i < count; i += kLoads * blockDim.x) {
    uint4 v[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      int64_t at = begin + i + k * blockDim.x;
      if (at >= count) at -= count;
      asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
                   : "=r"(v[k].x), "=r"(v[k].y), "=r"(v[k].z), "=r"(v[k].w)
                   : "l"(data + at));
    }
#pragma unroll
    for (int k = 0; k < kLoads; ++k) sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
  }
  if (sum == 12345u) *out = sum;
}

__global__ void fill_kernel(uint4* to, int64_t count) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
    const auto s = static_cast<uint32_t>(4 * i);
    to[i] = {noise(s), noise(s + 1), noise(s + 2), noise(s + 3)};
  }
}

__global__ void copy_kernel(const uint4* from, uint4* to, int64_t count) {
  constexpr int kLoads = 4;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += kLoads * stride) {
    uint4 v[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) v[k] = i + k * stride < count ? from[i + k * stride] : uint4{};
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      if (i + k * stride < count) to[i + k * stride] = v[k];
    }
  }
}

__global__ void empty_kernel() {}

// Milliseconds of one launch.
template <class Launch>
double milliseconds(const Launch& launch, double wanted = 20) {
  cudaEvent_t first, last;
  check(cudaEventCreate(&first), "cudaEventCreate");
  check(cudaEventCreate(&last), "cudaEventCreate");
  const auto time = [&](int times) {
    check(cudaEventRecord(first), "cudaEventRecord");
    for (int t = 0; t < times; ++t) launch();
    check(cudaEventRecord(last), "cudaEventRecord");
    check(cudaEventSynchronize(last), "cudaEventSynchronize");
    check(cudaGetLastError(), "launch");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, first, last), "cudaEventElapsedTime");
    return static_cast<double>(ms) / times;
  };
  time(2);
  const int times = static_cast<int>(std::clamp(wanted / std::max(time(2), 1e-6), 1., 2000.));
  time(times);
  double each[5];
  for (double& ms : each) ms = time(times);
  std::sort(each, each + 5);
  return each[2];
}

int main() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (!count) check(cudaErrorNoDevice, "cudaGetDeviceCount");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  const int sms = properties.multiProcessorCount, blocks = sms * kBlocksPerSm;
  const int64_t large = int64_t{1} << 31, small = properties.l2CacheSize / 2 / 4096 * 4096;  // bytes
  uint4 *a, *b;
  Elapsed* elapsed;
  check(cudaMalloc(&a, large), "cudaMalloc");
  check(cudaMalloc(&b, large), "cudaMalloc");
  check(cudaMalloc(&elapsed, sizeof(Elapsed)), "cudaMalloc");
  auto* const out = reinterpret_cast<float*>(b);
  fill_kernel<<<blocks, 256>>>(a, large / 16);

  const double instructions = double(blocks) * (kThreads / 32) * kRounds * kChains;  // of warps
  const double bf16 = milliseconds([&] { mma_kernel<false><<<blocks, kThreads>>>(out, elapsed, 1); });
  Elapsed last;
  check(cudaMemcpy(&last, elapsed, sizeof(last), cudaMemcpyDeviceToHost), "cudaMemcpy");
  const double mhz = 1e3 * double(last.clocks) / double(last.nanoseconds);
  const double tf32 = milliseconds([&] { mma_kernel<true><<<blocks, kThreads>>>(out, elapsed, 1); });
  const double exp2 = milliseconds([&] { exp2_kernel<<<blocks, kThreads>>>(out, 0.6f); });
  const double l2 = milliseconds([&] { l2_kernel<<<2 * sms, 512>>>(a, small / 16, reinterpret_cast<uint32_t*>(b)); });
  const double copy = milliseconds([&] { copy_kernel<<<16 * sms, 512>>>(a, b, large / 16); });
  const double launch = milliseconds([&] { empty_kernel<<<1, 32>>>(); });

  constexpr int kNodes = 100;
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamCreate(&stream), "cudaStreamCreate");
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  for (int k = 0; k < kNodes; ++k) empty_kernel<<<1, 32, 0, stream>>>();
  check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  const double node = milliseconds([&] { cudaGraphLaunch(executable, 0); }) / kNodes;

  std::printf(
      "{\"device\": \"%s\", \"multiprocessors\": %d, \"l2_mb\": %.1f, \"shared_kb_per_multiprocessor\": %.0f, "
      "\"mma_sync_bf16_tflops\": %.1f, \"mma_sync_tf32_tflops\": %.1f, \"mhz_under_mma\": %.0f, "
      "\"exp2_tera_per_s\": %.3f, \"l2_tb_per_s\": %.2f, \"copy_tb_per_s\": %.3f, \"launch_us\": %.2f, "
      "\"graph_node_us\": %.2f}\n",
      properties.name, sms, properties.l2CacheSize / 1e6, double(properties.sharedMemPerMultiprocessor) / 1024,
      instructions * 2 * 16 * 8 * 16 / bf16 / 1e9, instructions * 2 * 16 * 8 * 8 / tf32 / 1e9, mhz,
      instructions * 32 / exp2 / 1e9, double(small) * 2 * sms / l2 / 1e9, 2. * double(large) / copy / 1e9, 1e3 * launch,
      1e3 * node);
  return 0;
}
