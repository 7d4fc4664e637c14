// Bodies of tiles_launch.h.

#pragma once

#include "pair_margin.cuh"
#include "tiles_launch.h"

namespace mmcuda {

template <class Math>
const char* Tiles<Math>::pack(const void* from, void* to, int64_t count, int64_t d, int64_t stride, void* stream) {
  return launch<pack_kernel<E>>(blocks_for(count * stride), kPrepareThreads, 0, stream, static_cast<const E*>(from),
                                static_cast<E*>(to), count, d, stride);
}

template <class Math>
const char* Tiles<Math>::squares(const Side& row, const Side& column, int64_t items, T* squares, void* stream) {
  return launch<squares_kernel<E, T>>(blocks_for(32 * items), kPrepareThreads, 0, stream, row, column, items, squares);
}

template <class Math>
const char* Tiles<Math>::forward(Kind kind, const ForwardJob<T>& job, void* stream) {
  const int64_t macro_tiles = job.self ? int64_t{job.row_macro_tiles} * (job.row_macro_tiles + 1) / 2
                                       : int64_t{job.row_macro_tiles} * job.column_macro_tiles;
  const auto run = [&]<class Epilogue>(Epilogue) {
    using Tile = ForwardTileOf<Math, Epilogue>;
    const size_t shared = ForwardShared<Tile>(job.panels, job.resident, job.terms, job.strip).size;
    return launch<forward_kernel<Math, Epilogue>>(static_cast<unsigned>(macro_tiles), Tile::kThreads, shared, stream,
                                                  job);
  };
  if (kind == Kind::kInterval) return run(IntervalSums());
  return kind == Kind::kMargin ? run(MarginSums()) : run(AnySums());
}

// One instantiation of the backward: its tile, and its launch.
template <class Math, int kPanels, template <class, int> class Forces>
struct Backward {
  using Tile = TileOf<Math, kPanels, Forces>;
  static const char* run(const BackwardJob<typename Math::Accumulator>& job, int splits, void* stream) {
    const dim3 grid(static_cast<unsigned>((int64_t{job.own.count} + Tile::kTile - 1) / Tile::kTile),
                    static_cast<unsigned>((job.panels + kPanels - 1) / kPanels), static_cast<unsigned>(splits));
    return launch<backward_kernel<Math, kPanels, Forces>>(grid, Tile::kThreads, Tile::kShared, stream, job);
  }
};

// Calls use(Backward{}) with the one for a kind of epilogue, D and architecture. Only the interval epilogue is worth
// more than one:
//
//   D in panels of 128 bytes   1            2              3, 4           5 .. 8                      more
//   16 bits                    128 x 64     128 x 32       64 x 32        slices of 4                 slices of 4
//   32 bits, TF32              128 x 64     128 x 64       128 x 16       64 x 32, or slices of 4     slices of 4
//   32 bits, exact             64 x 64      64 x 64        64 x 32        64 x 32, or slices of 4     slices of 4
//   64 bits                    64 x 16      64 x 16        64 x 16        slices of 4                 slices of 4
//
// Eight panels of 32 bits take 129 KB: where a block may not have them (compute capability 8.6, 8.9, 12.0: 99 KB), each
// slice makes all logits again.
template <class Math, class Use>
auto with_backward(Kind kind, int panels, int shared_memory, const Use& use) {
  using E = typename Math::Element;
  constexpr int kMost = Math::kMostPanels;
  if (kind == Kind::kAny) return use(Backward<Math, kMost, AnyForces>());
  if (kind == Kind::kMargin) return use(Backward<Math, sizeof(E) == 2 ? 2 : kMost, MarginForces>());
  if constexpr (sizeof(E) == 2) {
    if (panels <= 1) return use(Backward<Math, 1, IntervalForces>());
  }
  if constexpr (sizeof(E) <= 4) {
    if (panels <= 2) return use(Backward<Math, 2, IntervalForces>());
  }
  if constexpr (sizeof(E) == 4) {
    using Whole = Backward<Math, 2 * kMost, IntervalForces>;
    const bool fits = Whole::Tile::kShared + kSharedOfSystem <= shared_memory;
    if (panels > kMost && panels <= 2 * kMost && fits) return use(Whole());
  }
  return use(Backward<Math, kMost, IntervalForces>());
}

template <class Math>
typename Tiles<Math>::Cut Tiles<Math>::cut(Kind kind, int panels, int shared_memory) {
  return with_backward<Math>(kind, panels, shared_memory, [&]<class B>(B) {
    using Tile = typename B::Tile;
    const int room = shared_memory / (Tile::kShared + kSharedOfSystem);
    return Cut{Tile::kPanels, Tile::kTile, Tile::kColumns, room < 2 ? 1 : 2};  // registers allow two
  });
}

template <class Math>
const char* Tiles<Math>::backward(Kind kind, const BackwardJob<T>& job, int splits, int shared_memory, void* stream) {
  return with_backward<Math>(kind, job.panels, shared_memory, [&]<class B>(B) { return B::run(job, splits, stream); });
}

template <class Math>
const char* Tiles<Math>::add_gradients(const BackwardJob<T>& job, int splits, void* stream) {
  return launch<add_gradients_kernel<E, T>>(blocks_for(job.own.count * job.d), kPrepareThreads, 0, stream, job, splits);
}

}  // namespace mmcuda
