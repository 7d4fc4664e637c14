// Tiles of features in shared memory, and their products by one warp.
//
// A panel is 128 bytes of the features of some rows: 64 features of 16 bits, 32 of 32, 16 of 64. In shared memory row r
// of a panel is the r-th 128 bytes, its chunks of 16 bytes in the order chunk ^ (r % 8). So each of the eight rows that
// one phase of ldmatrix or of a 16-byte access reads lies in other banks, and copies write whole rows.
//
// A warp's part of S = X Y^T is an array acc[kM][kN][4] of m16n8 accumulators (mma.cuh says which lane has which):
// rows 16 m + g and 16 m + g + 8, columns 8 n + 2t and 8 n + 2t + 1. The Math policies below differ in element type and
// in how fragments come out of a panel; what a lane has of an accumulator is the same for all of them.

#pragma once

#include "batch.cuh"

namespace mmcuda {

inline constexpr int kPanelBytes = 128;
inline constexpr int kChunkBytes = 16;

__device__ __forceinline__ int panel_offset(int row, int chunk) {
  return row * kPanelBytes + ((chunk ^ (row & 7)) * kChunkBytes);
}

// Starts copying panel `panel` of rows [row, row + kRows) of a side. Rows and features that are not there become zeros.
template <int kRows, int kThreads>
__device__ __forceinline__ void copy_panel(unsigned char* to, const Side& side, int row, int panel) {
  constexpr int kChunks = kPanelBytes / kChunkBytes, kRowsAtOnce = kThreads / kChunks;
  static_assert(kRows % kRowsAtOnce == 0 && kRowsAtOnce % 8 == 0);
  const int r = static_cast<int>(threadIdx.x) / kChunks, chunk = static_cast<int>(threadIdx.x) % kChunks;
  const int64_t byte = int64_t{kPanelBytes} * panel + kChunkBytes * chunk;
  const int rows = byte < side.bytes ? side.count - row - r : 0;
  const unsigned char* from = side.features + int64_t{row + r} * side.stride + byte;
  to += panel_offset(r, chunk);
#pragma unroll
  for (int first = 0; first < kRows; first += kRowsAtOnce, from += kRowsAtOnce * side.stride) {
    cp_async_16(to + first * kPanelBytes, from, first < rows);
  }
}

// ---- bfloat16 and float16: m16n8k16, ldmatrix, and its transposing form for the rows of Y in the second product

template <class E>
struct HalfMath {
  using Element = E;
  using Accumulator = float;
  static constexpr int kPanel = 64;         // features
  static constexpr int kSteps = 4;          // products along a panel
  static constexpr int kProducts = 1;       // mma instructions for one product of fragments
  static constexpr int kProductDepth = 16;  // columns of H that one product takes
  static constexpr int kGroup = 2;          // accumulators (of 8 features) whose fragments of Y come together
  static constexpr int kGroups = 4;         // .. of a panel
  static constexpr int kRun = 4;            // neighbouring features that a lane stores at once
  static constexpr int kPairsAtOnce = 4;    // pairs of B fragments in registers
  static constexpr int kStepsAtOnce = 2;    // unrolled
  static constexpr int kMostPanels = 4;     // of a slice of D in the backward

  struct A {
    uint32_t r[4];
  };
  struct B {
    uint32_t r[2];
  };
  using H = A;
  using Y = B;

  // Rows row .. row + 15
  static __device__ __forceinline__ void load_a(A& a, const unsigned char* panel, int row, int step) {
    const int lane = lane_id();
    ldmatrix_x4(a.r, panel + (panel_offset(row + (lane & 15), lane >> 4) ^ (2 * kChunkBytes * step)));
  }
  // Columns column .. column + 15
  static __device__ __forceinline__ void load_b(B (&b)[2], const unsigned char* panel, int column, int step) {
    const int lane = lane_id();
    uint32_t r[4];
    const int offset = panel_offset(column + (lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
    ldmatrix_x4(r, panel + (offset ^ (2 * kChunkBytes * step)));
    b[0] = {{r[0], r[1]}};
    b[1] = {{r[2], r[3]}};
  }
  template <int kProduct>
  static __device__ __forceinline__ void mma(float (&d)[4], const A& a, const B& b) {
    mmcuda::mma<E>(d, a.r, b.r);
  }

  // Columns 16 step .. of H, which the lane already has in the order of an A fragment
  template <int kN>
  static __device__ __forceinline__ void take_h(H& a, const float (&h)[kN][4], int step) {
    const auto& low = h[2 * step];
    const auto& high = h[2 * step + 1];
    a.r[0] = pack<E>(low[0], low[1]);
    a.r[1] = pack<E>(low[2], low[3]);
    a.r[2] = pack<E>(high[0], high[1]);
    a.r[3] = pack<E>(high[2], high[3]);
  }
  // Rows 16 step .. of Y, features 16 group ..
  static __device__ __forceinline__ void load_y(Y (&y)[2], const unsigned char* panel, int step, int group) {
    const int lane = lane_id();
    uint32_t r[4];
    ldmatrix_x4_trans(r, panel + (panel_offset(16 * step + (lane & 15), lane >> 4) ^ (2 * kChunkBytes * group)));
    y[0] = {{r[0], r[1]}};
    y[1] = {{r[2], r[3]}};
  }
  // x as the product reads it
  static __device__ __forceinline__ float rounded(float x) { return to_float(from_float<E>(x)); }
  // Feature of elements e and e + 2 of accumulator a of a slice of D
  static __device__ __forceinline__ int feature(int a, int e) { return 8 * a + 2 * (lane_id() & 3) + e; }
  // Calls use(feature of the panel, values [kRun]) for what a lane has of row g + 8 half in a group's accumulators.
  // Here two lanes exchange pairs, so that each has four neighbours and a quad writes whole sectors: all lanes must
  // come.
  template <class Use>
  static __device__ __forceinline__ void for_each_run(const float (*acc)[4], int group, int half, const Use& use) {
    const int t = lane_id() & 3;
    const bool odd = t & 1;  // keeps the second accumulator, else the first
    float mine[2], other[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float first = acc[0][2 * half + e], second = acc[1][2 * half + e];
      mine[e] = odd ? second : first;
      other[e] = __shfl_xor_sync(kWholeWarp, odd ? first : second, 1);
    }
    const float run[kRun] = {odd ? other[0] : mine[0], odd ? other[1] : mine[1], odd ? mine[0] : other[0],
                             odd ? mine[1] : other[1]};
    use(16 * group + 8 * (t & 1) + 4 * (t >> 1), run);
  }
};

// ---- float32: m16n8k8 of TF32, once, or exact to about 2^-22 by x = big + small, xy = big big + big small + small
// big. Three TF32 products are faster than FMA wherever the tensor cores have more than three times its rate: on A100
// and H100 2.7 and 2.5 times (19.5 and 67 TFLOP/s against 156 and 495 / 3), and every epilogue is that of 16 bits.

template <bool kExact>
struct Tf32Math {
  using Element = float;
  using Accumulator = float;
  static constexpr int kPanel = 32;
  static constexpr int kSteps = 4;
  static constexpr int kProducts = kExact ? 3 : 1;
  static constexpr int kProductDepth = 8;
  static constexpr int kGroup = 4;
  static constexpr int kGroups = 1;
  static constexpr int kRun = 4;
  static constexpr int kPairsAtOnce = kExact ? 1 : 4;
  static constexpr int kStepsAtOnce = kExact ? 1 : 4;
  static constexpr int kMostPanels = 4;

  struct A {
    uint32_t big[4], small[4];
  };
  struct B {
    uint32_t big[2], small[2];
  };
  using H = A;
  using Y = B;

  static __device__ __forceinline__ void split(float x, uint32_t& big, uint32_t& small) {
    big = to_tf32(x);
    if (kExact) small = to_tf32(x - __uint_as_float(big));
  }

  // A row of ldmatrix is four features, so the fragments of tf32 are loaded as those of 16 bits.
  static __device__ __forceinline__ void load_a(A& a, const unsigned char* panel, int row, int step) {
    const int lane = lane_id();
    uint32_t r[4];
    ldmatrix_x4(r, panel + (panel_offset(row + (lane & 15), lane >> 4) ^ (2 * kChunkBytes * step)));
#pragma unroll
    for (int e = 0; e < 4; ++e) split(__uint_as_float(r[e]), a.big[e], a.small[e]);
  }
  static __device__ __forceinline__ void load_b(B (&b)[2], const unsigned char* panel, int column, int step) {
    const int lane = lane_id();
    uint32_t r[4];
    const int offset = panel_offset(column + (lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
    ldmatrix_x4(r, panel + (offset ^ (2 * kChunkBytes * step)));
#pragma unroll
    for (int e = 0; e < 4; ++e) split(__uint_as_float(r[e]), b[e / 2].big[e % 2], b[e / 2].small[e % 2]);
  }
  // The small products first
  template <int kProduct>
  static __device__ __forceinline__ void mma(float (&d)[4], const A& a, const B& b) {
    if constexpr (kProduct == kProducts - 1) {
      mmcuda::mma<tf32>(d, a.big, b.big);
    } else if constexpr (kProduct == 0) {
      mmcuda::mma<tf32>(d, a.small, b.big);
    } else {
      mmcuda::mma<tf32>(d, a.big, b.small);
    }
  }

  // The order of the columns within a product is free: k = t is column 2t of H and row 2t of Y, k = t + 4 is 2t + 1.
  template <int kN>
  static __device__ __forceinline__ void take_h(H& a, const float (&h)[kN][4], int step) {
    split(h[step][0], a.big[0], a.small[0]);
    split(h[step][2], a.big[1], a.small[1]);
    split(h[step][1], a.big[2], a.small[2]);
    split(h[step][3], a.big[3], a.small[3]);
  }
  // So is the order of the features: column g of four accumulators is the four features of chunk_of(g). A lane has the
  // columns 2t and 2t + 1; in this order a quad stores whole sectors of 32 bytes, and loads of Y meet no bank twice.
  static __device__ __forceinline__ int chunk_of(int g) { return (g & 4) | ((g >> 1 & 1) ^ (g & 1 ? 3 : 0)); }
  static __device__ __forceinline__ void load_y(Y (&y)[4], const unsigned char* panel, int step, int) {
    const int row = 8 * step + 2 * (lane_id() & 3), chunk = chunk_of(lane_id() >> 2);
    const float4 first = load_shared<float4>(panel + panel_offset(row, chunk));
    const float4 second = load_shared<float4>(panel + panel_offset(row + 1, chunk));
    split(first.x, y[0].big[0], y[0].small[0]);
    split(first.y, y[1].big[0], y[1].small[0]);
    split(first.z, y[2].big[0], y[2].small[0]);
    split(first.w, y[3].big[0], y[3].small[0]);
    split(second.x, y[0].big[1], y[0].small[1]);
    split(second.y, y[1].big[1], y[1].small[1]);
    split(second.z, y[2].big[1], y[2].small[1]);
    split(second.w, y[3].big[1], y[3].small[1]);
  }
  static __device__ __forceinline__ float rounded(float x) { return kExact ? x : __uint_as_float(to_tf32(x)); }
  static __device__ __forceinline__ int feature(int a, int e) {
    return 32 * (a / 4) + 4 * chunk_of(2 * (lane_id() & 3) + e) + a % 4;
  }
  template <class Use>
  static __device__ __forceinline__ void for_each_run(const float (*acc)[4], int, int half, const Use& use) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int v = 2 * half + e;
      const float run[kRun] = {acc[0][v], acc[1][v], acc[2][v], acc[3][v]};
      use(4 * chunk_of(2 * (lane_id() & 3) + e), run);
    }
  }
};

// ---- float64: FMA. Each lane loads what its own accumulators need; lanes of a row or column read the same address.

struct DoubleMath {
  using Element = double;
  using Accumulator = double;
  static constexpr int kPanel = 16;
  static constexpr int kSteps = 8;
  static constexpr int kProducts = 1;
  static constexpr int kProductDepth = 1;
  static constexpr int kGroup = 2;
  static constexpr int kGroups = 1;
  static constexpr int kRun = 2;
  static constexpr int kPairsAtOnce = 1;
  static constexpr int kStepsAtOnce = 1;
  static constexpr int kMostPanels = 4;

  struct A {
    double2 row[2];  // two features of rows g and g + 8
  };
  struct B {
    double2 column[2];  // .. of columns 2t and 2t + 1
  };
  struct H {
    double row[2];  // one column of H
  };
  struct Y {
    double2 features;  // 2t and 2t + 1 of one row of Y
  };

  static __device__ __forceinline__ void load_a(A& a, const unsigned char* panel, int row, int step) {
    const int g = lane_id() >> 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      a.row[half] = load_shared<double2>(panel + panel_offset(row + 8 * half + g, step));
    }
  }
  static __device__ __forceinline__ void load_b(B (&b)[2], const unsigned char* panel, int column, int step) {
    const int t = lane_id() & 3;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        b[n].column[e] = load_shared<double2>(panel + panel_offset(column + 8 * n + 2 * t + e, step));
      }
    }
  }
  template <int kProduct>
  static __device__ __forceinline__ void mma(double (&d)[4], const A& a, const B& b) {
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      d[v] += a.row[v / 2].x * b.column[v % 2].x;
      d[v] += a.row[v / 2].y * b.column[v % 2].y;
    }
  }

  // Column `step` of H, from the lane of the quad that has it
  template <int kN>
  static __device__ __forceinline__ void take_h(H& a, const double (&h)[kN][4], int step) {
    const int source = (lane_id() & 28) | step % 8 / 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      a.row[half] = __shfl_sync(kWholeWarp, h[step / 8][2 * half + step % 2], source);
    }
  }
  static __device__ __forceinline__ void load_y(Y (&y)[2], const unsigned char* panel, int step, int) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      y[n].features = load_shared<double2>(panel + panel_offset(step, 4 * n + (lane_id() & 3)));
    }
  }
  template <int kProduct>
  static __device__ __forceinline__ void mma(double (&d)[4], const H& a, const Y& y) {
    d[0] += a.row[0] * y.features.x;
    d[1] += a.row[0] * y.features.y;
    d[2] += a.row[1] * y.features.x;
    d[3] += a.row[1] * y.features.y;
  }
  static __device__ __forceinline__ double rounded(double x) { return x; }
  static __device__ __forceinline__ int feature(int a, int e) { return 8 * a + 2 * (lane_id() & 3) + e; }
  template <class Use>
  static __device__ __forceinline__ void for_each_run(const double (*acc)[4], int, int half, const Use& use) {
#pragma unroll
    for (int n = 0; n < kGroup; ++n) {
      const double run[kRun] = {acc[n][2 * half], acc[n][2 * half + 1]};
      use(8 * n + 2 * (lane_id() & 3), run);
    }
  }
};

// ---- products

// Calls each(std::integral_constant) for 0 .. kCount - 1.
template <int kCount, int kFirst = 0, class Each>
__device__ __forceinline__ void static_for(const Each& each) {
  if constexpr (kFirst < kCount) {
    each(std::integral_constant<int, kFirst>{});
    static_for<kCount, kFirst + 1>(each);
  }
}

template <class T, int kM, int kN>
__device__ __forceinline__ void clear(T (&acc)[kM][kN][4]) {
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int v = 0; v < 4; ++v) acc[m][n][v] = 0;
    }
  }
}

// acc += X Y^T over one panel, of rows row .. row + 16 kM - 1 of X and column .. column + 8 kN - 1 of Y
template <class Math, int kM, int kN>
__device__ __forceinline__ void multiply_panel(typename Math::Accumulator (&acc)[kM][kN][4], const unsigned char* x,
                                               int row, const unsigned char* y, int column) {
  static_assert(kN % 2 == 0);
  constexpr int kPairs = kN / 2 < Math::kPairsAtOnce ? kN / 2 : Math::kPairsAtOnce;
#pragma unroll Math::kStepsAtOnce
  for (int step = 0; step < Math::kSteps; ++step) {
#pragma unroll
    for (int first = 0; first < kN; first += 2 * kPairs) {
      typename Math::B b[kPairs][2];
#pragma unroll
      for (int n = 0; n < kPairs; ++n) Math::load_b(b[n], y, column + 8 * first + 16 * n, step);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        typename Math::A a;
        Math::load_a(a, x, row + 16 * m, step);
        static_for<Math::kProducts>([&](auto product) {
#pragma unroll
          for (int n = 0; n < 2 * kPairs; ++n) {
            Math::template mma<product.value>(acc[m][first + n], a, b[n / 2][n % 2]);
          }
        });
      }
    }
  }
}

// gradient += H Y: h[kM] are the accumulators of H, of whose columns Y has the rows, `panels` of kPanels panels
template <class Math, int kM, int kN, int kPanels>
__device__ __forceinline__ void multiply_rows(
    typename Math::Accumulator (&gradient)[kM][kPanels * Math::kGroups * Math::kGroup][4],
    const typename Math::Accumulator (&h)[kM][kN][4], const unsigned char* y, int panels) {
  constexpr int kRows = 8 * kN;
#pragma unroll
  for (int step = 0; step < kRows / Math::kProductDepth; ++step) {
    typename Math::H a[kM];
#pragma unroll
    for (int m = 0; m < kM; ++m) Math::take_h(a[m], h[m], step);
#pragma unroll
    for (int panel = 0; panel < kPanels; ++panel) {
      if (panel >= panels) break;
#pragma unroll
      for (int group = 0; group < Math::kGroups; ++group) {
        typename Math::Y b[Math::kGroup];
        Math::load_y(b, y + panel * kRows * kPanelBytes, step, group);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          static_for<Math::kProducts>([&](auto product) {
#pragma unroll
            for (int n = 0; n < Math::kGroup; ++n) {
              Math::template mma<product.value>(gradient[m][(panel * Math::kGroups + group) * Math::kGroup + n], a[m],
                                                b[n]);
            }
          });
        }
      }
    }
  }
}

}  // namespace mmcuda
