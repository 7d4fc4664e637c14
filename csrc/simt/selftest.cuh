// Kernels that use every wrapper of mma.cuh once: the harness is tested with these, and with bugs patched into them.

#pragma once

#include "../cuda/mma.cuh"

namespace mmcuda::selftest {

constexpr int kTile = 64, kThreads = 128, kStages = 3, kChunk = 16;  // rows; threads; stages; bytes of a copy
constexpr int kChunks = 4;                                           // of a row in a stage
constexpr int kStageBytes = 2 * kTile * kChunks * kChunk;            // rows I, then rows J
constexpr unsigned kFull = 0xffffffff;

template <class E>
struct Stored {
  using type = E;
};
template <>
struct Stored<tf32> {
  using type = float;
};

template <class E>
struct Gram {
  const typename Stored<E>::type* x;  // [n, d], d a multiple of the elements of a chunk
  int n, d;
  float scale;
  float* s;        // [n, n] X X^T
  float* partial;  // [tiles, n] sums of 2^(scale S_ij) over the j of a tile
  int* finished;   // [2] blocks that are done; nothing
};

// Chunk c of row r lies where ldmatrix of eight rows, and copies of four chunks, touch every bank once.
__device__ inline int swizzled(int r, int c) { return (r * kChunks + (c ^ (r / 2 % kChunks))) * kChunk; }

// S = X X^T and the sums of its exponentials, one block per pair of tiles J >= I.
//
//   grid     (tiles, tiles): block (J, I) returns at once where J < I
//   warp w   rows 16 w .. 16 w + 15 of tile I against all of tile J: 8 fragments of 16 x 8
//   shared   kStages stages of [I: 64 rows | J: 64 rows] x 64 bytes; at the end [4 warps, 64] sums of columns
//   barrier  one a stage: behind it the stage has landed for everyone, and the stage before it is free to be filled
template <class E>
__global__ void __launch_bounds__(kThreads) gram_kernel(const __grid_constant__ Gram<E> p) {
  using T = typename Stored<E>::type;
  constexpr int kElements = kChunk / int(sizeof(T));  // of a chunk
  MMCUDA_DYNAMIC_SHARED(shared);
  const int tile_i = blockIdx.y, tile_j = blockIdx.x;
  if (tile_j < tile_i) {
    return;
  }
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int steps = (p.d + kChunks * kElements - 1) / (kChunks * kElements);

  const auto fill = [&](int step) {
    unsigned char* const stage = shared + step % kStages * kStageBytes;
    for (int i = threadIdx.x; i < 2 * kTile * kChunks; i += kThreads) {
      const int r = i / kChunks, c = i % kChunks, k = (step * kChunks + c) * kElements;
      const int row = (r < kTile ? tile_i * kTile : (tile_j - 1) * kTile) + r;
      const bool inside = row < p.n && k < p.d;
      cp_async_16(stage + swizzled(r, c), inside ? p.x + size_t(row) * p.d + k : p.x, inside);
    }
  };

  float acc[kTile / 8][4] = {};
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) {
      fill(step);
    }
    cp_async_commit();
  }
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<kStages - 2>();
    __syncthreads();
    if (step + kStages - 1 < steps) {
      fill(step + kStages - 1);
    }
    cp_async_commit();
    const unsigned char* const stage = shared + step % kStages * kStageBytes;
    for (int k = 0; k < kChunks; k += 2) {  // a product takes two chunks
      uint32_t a[4];
      ldmatrix_x4(a, stage + swizzled(16 * warp + lane % 16, k + lane / 16));
      for (int j = 0; j < kTile / 8; j += 2) {
        uint32_t b[4];
        const int row = kTile + 8 * j + lane % 8 + lane / 16 * 8, chunk = k + lane / 8 % 2;
        ldmatrix_x4(b, stage + swizzled(row, chunk));
        if constexpr (std::is_same_v<E, tf32>) {
          for (int i = 0; i < 4; ++i) {
            a[i] = to_tf32(__uint_as_float(a[i]));
            b[i] = to_tf32(__uint_as_float(b[i]));
          }
        }
        mma<E>(acc[j], a, {b[0], b[1]});
        mma<E>(acc[j + 1], a, {b[2], b[3]});
      }
    }
  }
  __syncthreads();  // stages become the sums of columns

  const bool diagonal = tile_i == tile_j;
  float row_sums[2] = {};
  for (int j = 0; j < kTile / 8; ++j) {
    for (int e = 0; e < 2; ++e) {
      const int column = 8 * j + 2 * t + e, col = tile_j * kTile + column;
      float column_sum = 0;
      for (int h = 0; h < 2; ++h) {
        const int row = tile_i * kTile + 16 * warp + g + 8 * h;
        const float value = acc[j][2 * h + e];
        const bool inside = row < p.n && col < p.n;
        const float exponential = inside ? exp2_approx(value * p.scale) : 0;
        row_sums[h] += exponential;
        column_sum += exponential;
        if (row < p.n && col < p.n) {
          p.s[size_t(row) * p.n + col] = value;
          if (!diagonal) {
            p.s[size_t(col) * p.n + row] = value;
          }
        }
      }
      for (int bit = 4; bit < 32; bit *= 2) {
        column_sum += __shfl_xor_sync(kFull, column_sum, bit);
      }
      if (g == 0) {
        store_shared(shared + (warp * kTile + column) * sizeof(float), column_sum);
      }
    }
  }
  for (int h = 0; h < 2; ++h) {
    for (int bit = 1; bit < 4; bit *= 2) {
      row_sums[h] += __shfl_xor_sync(kFull, row_sums[h], bit);
    }
    const int row = tile_i * kTile + 16 * warp + g + 8 * h;
    if (t == 0 && row < p.n) {
      p.partial[size_t(tile_j) * p.n + row] = row_sums[h];
    }
  }
  __syncthreads();
  const int col = tile_j * kTile + int(threadIdx.x);
  if (threadIdx.x < kTile && col < p.n && !diagonal) {
    float sum = 0;
    for (int w = 0; w < kThreads / 32; ++w) {
      sum += load_shared<float>(shared + (w * kTile + threadIdx.x) * sizeof(float));
    }
    p.partial[size_t(tile_i) * p.n + col] = sum;
  }
  if (threadIdx.x == 0) {
    atomicAdd(p.finished, 1);
  }
}

// Adds the partial sums of every row, a warp each: lanes add tiles, lane 0 adds the lanes' sums in their order.
__global__ void __launch_bounds__(kThreads) finish_kernel(const float* partial,  // [tiles, n]
                                                          float* sums,           // [n]
                                                          int n, int tiles) {
  MMCUDA_DYNAMIC_SHARED(shared);  // [warps, 32]
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = blockIdx.x * (kThreads / 32) + warp;
  float sum = 0;
  for (int tile = lane; tile < tiles && row < n; tile += 32) {
    sum += load_global<float>(partial + size_t(tile) * n + row);
  }
  unsigned char* const mine = shared + threadIdx.x / 32 * 32 * sizeof(float);
  store_shared(mine + lane * sizeof(float), sum);
  __syncwarp();
  if (lane == 0 && row < n) {
    for (int i = 1; i < 32; ++i) {
      sum += load_shared<float>(mine + i * sizeof(float));
    }
    sums[row] = sum;
  }
}

// What each thread of a warp gets from every collective, conversion and copy.
struct Collected {
  uint32_t matrices[4][4];  // ldmatrix x4, x4 transposed, x2, x2 transposed of the elements 0 .. 255
  float shuffled[4];        // lane number by xor 5, down 3, up 2, from lane 7
  uint32_t ballot;          // lanes divisible by 3
  int any, all, halves;     // of lane > 30, lane < 32; lane number summed over the lanes' half of the warp
  float4 copied;            // 16 bytes by cp.async: 4 as 4 + 4 + 8, the odd thread's last 8 not valid
  float rounded[3];         // 1 + lane / 1000 as bfloat16, half16, tf32
  uint32_t packed[2];       // (lane, -lane) as bfloat16 and half16
  float exponential, logarithm;
};

constexpr int kCollectShared = 1024;  // bytes: [256] elements, [32, 4] floats

__global__ void __launch_bounds__(32) collect_kernel(const uint16_t* elements,  // [256]
                                                     const float* x,            // [32, 4]
                                                     Collected* out,            // [32]
                                                     double* total) {           // [1] sum of the lane numbers
  MMCUDA_DYNAMIC_SHARED(shared);                                                // [256] elements, [32, 4] floats
  const int lane = threadIdx.x;
  unsigned char* const target = shared + 512 + 16 * lane;
  cp_async_4(target, x + 4 * lane, true);
  cp_async_4(target + 4, x + 4 * lane + 1, true);
  cp_async_commit();
  cp_async_8(target + 8, x + 4 * lane + 2, lane % 2 == 0);
  cp_async_commit();
  store_shared(shared + 16 * lane, load_global<uint4>(elements + 8 * lane));
  __syncwarp();

  Collected c = {};
  const unsigned char* const row = shared + 16 * lane;
  uint32_t r[2];
  ldmatrix_x4(c.matrices[0], row);
  ldmatrix_x4_trans(c.matrices[1], row);
  ldmatrix_x2(r, row);
  c.matrices[2][0] = r[0], c.matrices[2][1] = r[1];
  ldmatrix_x2_trans(r, row);
  c.matrices[3][0] = r[0], c.matrices[3][1] = r[1];
  c.shuffled[0] = __shfl_xor_sync(kFull, float(lane), 5);
  c.shuffled[1] = __shfl_down_sync(kFull, float(lane), 3);
  c.shuffled[2] = __shfl_up_sync(kFull, float(lane), 2);
  c.shuffled[3] = __shfl_sync(kFull, float(lane), 7);
  c.ballot = __ballot_sync(kFull, lane % 3 == 0);
  c.any = __any_sync(kFull, lane > 30);
  c.all = __all_sync(kFull, lane < 32);
  c.halves = lane;
  for (int bit = 1; bit < 16; bit *= 2) {
    c.halves += __shfl_xor_sync(lane < 16 ? 0xffffu : 0xffff0000u, c.halves, bit);
  }
  cp_async_wait<0>();
  c.copied = load_shared<float4>(target);
  const float near_one = 1 + float(lane) / 1000;
  c.rounded[0] = to_float(from_float<bfloat16>(near_one));
  c.rounded[1] = to_float(from_float<half16>(near_one));
  c.rounded[2] = __uint_as_float(to_tf32(near_one));
  c.packed[0] = pack<bfloat16>(float(lane), -float(lane));
  c.packed[1] = pack<half16>(float(lane), -float(lane));
  c.exponential = exp2_approx(near_one);
  c.logarithm = log2_approx(near_one);
  atomicAdd(total, double(lane));
  out[lane] = c;
}

}  // namespace mmcuda::selftest
