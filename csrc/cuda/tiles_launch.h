// Launches of the kernels over tiles, compiled once for each dtype: launch_<dtype>.cu.

#pragma once

#include "backward.cuh"
#include "forward.cuh"
#include "limits.h"

namespace mmcuda {

using Bfloat16Math = HalfMath<bfloat16>;
using Float16Math = HalfMath<half16>;
using Float32Math = Tf32Math<true>;
using FastFloat32Math = Tf32Math<false>;

// Which epilogue: that of one interval set, that of all, that of the pair margin loss.
enum class Kind { kInterval, kAny, kMargin };

template <class Math>
struct Tiles {
  using T = typename Math::Accumulator;
  using E = typename Math::Element;

  static const char* pack(const void* from, void* to, int64_t count, int64_t d, int64_t stride, void* stream);
  static const char* squares(const Side& row, const Side& column, int64_t items, T* squares, void* stream);
  static const char* forward(Kind kind, const ForwardJob<T>& job, void* stream);

  // How the backward is cut: it depends on Kind, D and the shared memory that a multiprocessor has.
  struct Cut {
    int panels;         // of a slice of D
    int rows, columns;  // of a tile
    int blocks;         // that a multiprocessor has room for
  };
  static Cut cut(Kind kind, int panels, int shared_memory);
  static const char* backward(Kind kind, const BackwardJob<T>& job, int splits, int shared_memory, void* stream);
  static const char* add_gradients(const BackwardJob<T>& job, int splits, void* stream);
};

extern template struct Tiles<Bfloat16Math>;
extern template struct Tiles<Float16Math>;
extern template struct Tiles<Float32Math>;
extern template struct Tiles<FastFloat32Math>;
extern template struct Tiles<DoubleMath>;

inline unsigned blocks_for(int64_t threads) {
  const int64_t blocks = (threads + kPrepareThreads - 1) / kPrepareThreads;
  return static_cast<unsigned>(blocks < 1 << 16 ? blocks : 1 << 16);
}

}  // namespace mmcuda
