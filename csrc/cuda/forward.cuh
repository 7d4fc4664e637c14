// Sums over all pairs, for every row and every column: the passes of the forward.
//
// The tiles of S = X Y^T form a rectangle or, in self-contrast, the triangle J >= I: there S is symmetric, and a tile's
// column sums are those of the rows J. A thread block owns one macro tile and leaves the sums of its rows and
// of its columns in slots of `partial` that nobody else writes; reduce.cuh adds the slots in their order. So there are
// no atomics, results are the same in every run, and memory is O(slots * items).
//
//   macro tile (P, Q)      strips of columns, kept short so that their sums fit shared memory
//   +--------+--------+
//   | 1  2  3| 7  8  9|     order of tiles: strip by strip, row by row, from left to right
//   | 4  5  6|10 11 12|
//   +--------+--------+
//
// One tile: kTile x kTile logits by 4 or 8 warps, in two rows, each 16 kM x 8 kN. The panels of D stream through two
// stages of shared memory by cp.async, that of the next tile during the sums of this one; the panels of the rows stay
// where they fit. The barrier behind each wait says two things: the panel has come, for all threads, and nobody reads
// the stage that is filled next. Sums in shared memory belong to one warp each until a strip or a row of tiles ends.

#pragma once

#include "relations.cuh"
#include "tiles.cuh"

namespace mmcuda {

template <class T>
struct ForwardJob {
  const DeviceScalars* scalars;
  ShiftMode shift_mode;
  Side row, column;    // one and the same in self-contrast
  int64_t items;       // L
  int64_t anchors;     // A
  int self;            // a triangle of tiles
  int serves_columns;  // column sums are wanted
  int distance;        // row i and column i + distance are no pair
  int panels;          // of D; 0 where dot products are not needed
  int resident;        // the panels of the rows stay in shared memory
  int row_tiles, column_tiles;
  int row_macro_tiles, column_macro_tiles;  // macro tiles along rows and columns
  int strip;                                // tiles
  int maximum;                              // terms are maxima
  int terms;
  Term term[kMaxTerms];
  int sets;
  DeviceRelation<T> set[kMostSets];
  const T* shift;  // [sums] of [A], `shift_stride` apart
  int64_t shift_stride;
  const T* log_sum;  // [K, A] log2 E_ki
  MarginArguments<T> margin;
  T* partial;  // [terms, slots, A]
  int slots;
};

// `kWide`: few warps with many accumulators each, which read less of shared memory, for an epilogue of few registers.
template <class Math, bool kWide>
struct ForwardTile {
  using T = typename Math::Accumulator;
  static constexpr int kWarpRows = 2, kWarpColumns = kWide ? 2 : 4, kThreads = 32 * kWarpRows * kWarpColumns;
  static constexpr int kM = sizeof(T) == 4 ? 4 : 2, kTile = kWarpRows * 16 * kM;
  static constexpr int kN = kTile / (kWarpColumns * 8);
  static constexpr int kPanelSize = kTile * kPanelBytes;
  static constexpr int kLabelSize = kTile * 4;  // orders of the columns, begins and ends of the rows
};

// Shared memory, in bytes: the rows' panels if they stay; two stages of a panel of the columns, one of the rows if they
// do not, and orders; labels of the rows; sums.
template <class Tile>
struct ForwardShared {
  int stage_size, stages, row_labels, row_sums, column_sums, size;

  __host__ __device__ ForwardShared(int panels, bool resident, int terms, int strip) {
    const int sum_size = terms * Tile::kTile * static_cast<int>(sizeof(typename Tile::T));
    stage_size = (resident ? 1 : 2) * Tile::kPanelSize + Tile::kLabelSize;
    stages = resident ? panels * Tile::kPanelSize : 0;
    row_labels = stages + (panels ? 2 * stage_size : 0);
    row_sums = row_labels + 2 * Tile::kLabelSize;
    column_sums = row_sums + Tile::kWarpColumns * sum_size;
    size = column_sums + Tile::kWarpRows * strip * sum_size;
  }
};

// The tiles of a macro tile in their order.
struct TileIterator {
  int row_begin, row_end, column_end, strip;
  bool triangle;
  int strip_begin, i, j;

  __device__ __forceinline__ bool done() const { return strip_begin >= column_end; }
  __device__ __forceinline__ int strip_end() const { return min(strip_begin + strip, column_end); }
  __device__ __forceinline__ int first_column() const { return triangle ? max(strip_begin, i) : strip_begin; }
  __device__ __forceinline__ void next() {
    if (++j < strip_end()) return;
    if (++i >= (triangle ? min(row_end, strip_end()) : row_end)) {
      strip_begin += strip;
      i = row_begin;
    }
    j = first_column();
  }
};

// Sum or maximum.
struct Combine {
  bool maximum;
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return maximum ? (a > b ? a : b) : a + b;
  }
  template <class T>
  __device__ __forceinline__ T neutral() const {
    return maximum ? lowest<T>() : T(0);
  }
};

// Where one warp leaves the sums of its part of a tile.
template <class T>
struct WarpSums {
  T* row;     // of the warp's first row; terms are row_stride apart
  T* column;  // of its first column
  int row_stride, column_stride;
  bool columns;  // column sums are wanted
  Combine combine;

  // value[r] is of row 8 r + g. The four lanes of a row halve the rows between them twice, until each has its own.
  template <int kRows>
  __device__ __forceinline__ void add_rows(int term, const T (&value)[kRows]) const {
    const int lane = lane_id(), odd = lane & 1, high = lane >> 1 & 1;
    T half[kRows / 2];
#pragma unroll
    for (int r = 0; r < kRows / 2; ++r) half[r] = exchange(value[2 * r], value[2 * r + 1], odd, 1);
#pragma unroll
    for (int r = 0; r < kRows / 4; ++r) {
      const T total = exchange(half[2 * r], half[2 * r + 1], high, 2);
      T* const sum = row + term * row_stride + 8 * (4 * r + 2 * high + odd) + (lane >> 2);
      *sum = combine(*sum, total);
    }
  }
  // value[c] is of column 8 (c / 2) + 2t + c % 2. The eight lanes of a column do likewise.
  template <int kColumns>
  __device__ __forceinline__ void add_columns(int term, const T (&value)[kColumns]) const {
    constexpr int kLast = kColumns > 4 ? kColumns / 8 : 1;
    if (!columns) return;
    const int lane = lane_id(), g = lane >> 2;
    T half[kColumns / 2], quarter[kColumns / 4];
#pragma unroll
    for (int c = 0; c < kColumns / 2; ++c) half[c] = exchange(value[2 * c], value[2 * c + 1], g & 1, 4);
#pragma unroll
    for (int c = 0; c < kColumns / 4; ++c) quarter[c] = exchange(half[2 * c], half[2 * c + 1], g & 2, 8);
#pragma unroll
    for (int last = 0; last < kLast; ++last) {
      const T total = exchange(quarter[2 * last], quarter[(2 * last + 1) % (kColumns / 4)], g & 4, 16);
      const int c = 8 * last + g % kColumns;  // with four columns two lanes have the same total
      T* const sum = column + term * column_stride + 8 * (c / 2) + 2 * (lane & 3) + c % 2;
      if (kColumns > 4 || g < 4) *sum = combine(*sum, total);
    }
  }

 private:
  // Of two values that two lanes both have, one keeps the first, the other, `odd`, the second, each for both.
  __device__ __forceinline__ T exchange(T first, T second, bool odd, int distance) const {
    return combine(odd ? second : first, __shfl_xor_sync(kWholeWarp, odd ? first : second, distance));
  }
};

// ---- the two epilogues

// One attribute of intervals, its positives outside the logarithm, the denominator all pairs, one constant shift: terms
// are sum_j exp(..) and sum_j r_ij x_i.y_j. One exponential serves row and column.
struct IntervalSums {
  static constexpr bool kLabels = true;  // in shared memory
  static constexpr int kBlocksPerSm = 2;

  // orders of the lane's columns 8 n + 2t from `orders` on; intervals of its rows 8 r + g
  template <class Math, class T, int kM, int kN>
  static __device__ __forceinline__ void add(const ForwardJob<T>& job, T (&acc)[kM][kN][4], const TilePairs<kM>& pairs,
                                             const WarpSums<T>& sums, const int* orders, const int* begins,
                                             const int* ends) {
    exclude(acc, pairs, lowest<T>());  // exp is 0 there
    const T scale = T(job.scalars->scale), shift = T(job.scalars->shift) * scale;
    T of_row[2 * kM] = {}, of_column[2 * kN] = {};
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      for_slice<kN>([&](int n, int v) {
        const T e = exp2_of(multiply_add(acc[m][n][v], scale, -shift));
        of_row[2 * m + v / 2] += e;
        of_column[2 * n + v % 2] += e;
      });
    }
    sums.add_rows(0, of_row);
    sums.add_columns(0, of_column);

    exclude(acc, pairs, T(0));
#pragma unroll
    for (int c = 0; c < 2 * kN; ++c) of_column[c] = 0;
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      const int begin[2] = {begins[16 * m], begins[16 * m + 8]};
      const int span[2] = {ends[16 * m] - begin[0], ends[16 * m + 8] - begin[1]};
      of_row[2 * m] = of_row[2 * m + 1] = 0;
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        const int2 order = load_shared<int2>(orders + 8 * n);
#pragma unroll
        for (int v = 0; v < 4; ++v) {
          const bool related = unsigned((v % 2 ? order.y : order.x) - begin[v / 2]) <= unsigned(span[v / 2]);
          const T linear = related ? acc[m][n][v] : T(0);
          of_row[2 * m + v / 2] += linear;
          of_column[2 * n + v % 2] += linear;
        }
      }
    }
    sums.add_rows(1, of_row);
    sums.add_columns(1, of_column);
  }

  template <class T, int kM, int kN>
  static __device__ __forceinline__ void exclude(T (&acc)[kM][kN][4], const TilePairs<kM>& pairs, T value) {
    if (pairs.full) return;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      for_slice<kM>([&](int m, int v) {
        if (!pairs.exists(m, n, v)) acc[m][n][v] = value;
      });
    }
  }
};

// Any list of terms. The accumulators pass by, one column of them at a time, so that the code exists once.
struct AnySums {
  static constexpr bool kLabels = false;
  static constexpr int kBlocksPerSm = 1;

  template <class Math, class T, int kM, int kN>
  static __device__ __forceinline__ void add(const ForwardJob<T>& job, T (&acc)[kM][kN][4], const TilePairs<kM>& pairs,
                                             const WarpSums<T>& sums, const int*, const int*, const int*) {
    const T scale = T(job.scalars->scale);
    for (int t = 0; t < job.terms; ++t) {
      const Term term = job.term[t];
      const bool shifted = term.function == Function::kExponential || term.function == Function::kSoftplus ||
                           term.function == Function::kSigmoid;
      const bool softplus = shifted && term.function != Function::kExponential;
      const T* const shift = shifted ? job.shift + term.sum * job.shift_stride : nullptr;
      const T* const log_sum = softplus ? job.log_sum + term.set * job.anchors : nullptr;
      const int last = static_cast<int>(job.anchors) - 1;  // columns need not be anchors
      T of_row[2 * kM], row_shift[2 * kM], row_log[2 * kM], of_columns[2 * kN];
#pragma unroll
      for (int r = 0; r < 2 * kM; ++r) {
        const int i = pairs.item_of_row(r / 2, r % 2);
        of_row[r] = sums.combine.template neutral<T>();
        row_shift[r] = shifted ? load_global<T>(shift + i) : T(0);
        row_log[r] = softplus ? load_global<T>(log_sum + i) : T(0);
      }
#pragma unroll 1
      for (int n = 0; n < kN; ++n) {
        T weight[2][kM][4];  // as the row sees it, and the column
        weigh(job, term, pairs, n, weight);
        T column_shift[2], column_log[2], of_column[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int j = min(pairs.item_of_column(n, e), last);
          of_column[e] = sums.combine.template neutral<T>();
          column_shift[e] = shifted ? load_global<T>(shift + j) : T(0);
          column_log[e] = softplus ? load_global<T>(log_sum + j) : T(0);
        }
        for_slice<kM>([&](int m, int v) {
          const int r = 2 * m + v / 2;
          const T dot = acc[m][0][v], of_i = weight[0][m][v], of_j = weight[1][m][v];
          // Pairs of weight 0 may lie above the maximum: they must not overflow.
          const T below_i = (dot - row_shift[r]) * scale, below_j = (dot - column_shift[v % 2]) * scale;
          T value_i = dot, value_j = dot;
          if (term.function == Function::kExponential) {
            value_i = exp2_of(below_i < 0 ? below_i : T(0));
            value_j = exp2_of(below_j < 0 ? below_j : T(0));
          } else if (term.function == Function::kCount) {
            value_i = value_j = 1;
          } else if (term.function == Function::kSoftplus) {
            value_i = softplus2(row_log[r] - below_i);
            value_j = softplus2(column_log[v % 2] - below_j);
          } else if (term.function == Function::kSigmoid) {
            value_i = sigmoid2(row_log[r] - below_i);
            value_j = sigmoid2(column_log[v % 2] - below_j);
          }
          if (sums.combine.maximum) {
            value_i = of_i > 0 ? value_i : lowest<T>();
            value_j = of_j > 0 ? value_j : lowest<T>();
          } else {
            value_i *= of_i;
            value_j *= of_j;
          }
          of_row[r] = sums.combine(of_row[r], value_i);
          of_column[v % 2] = sums.combine(of_column[v % 2], value_j);
        });
        append(of_columns, of_column);
        rotate(acc);
      }
      sums.add_rows(t, of_row);
      sums.add_columns(t, of_columns);
    }
  }

  // omega_ij and omega_ji of accumulator column n; 0 where there is no pair
  template <class T, int kM>
  static __device__ __forceinline__ void weigh(const ForwardJob<T>& job, const Term& term, const TilePairs<kM>& pairs,
                                               int n, T (&weight)[2][kM][4]) {
    for_slice<kM>([&](int m, int v) { weight[0][m][v] = weight[1][m][v] = 1; });
    if (term.weight != Weight::kEvery) {
      const Related<T, kM> related(job.set[term.set], job.items, pairs, n, job.self, false);
      const bool unrelated = term.weight == Weight::kUnrelated;
      for_slice<kM>([&](int m, int v) {
        weight[0][m][v] = unrelated ? 1 - related.row[m][v] : related.row[m][v];
        weight[1][m][v] = unrelated ? 1 - related.column[m][v] : related.column[m][v];
      });
    }
    if (pairs.full) return;
    for_slice<kM>([&](int m, int v) {
      if (!pairs.exists(m, n, v)) weight[0][m][v] = weight[1][m][v] = 0;
    });
  }

  // Sums of two columns behind those before.
  template <class T, int kColumns>
  static __device__ __forceinline__ void append(T (&of_columns)[kColumns], const T (&of_column)[2]) {
#pragma unroll
    for (int c = 0; c + 2 < kColumns; ++c) of_columns[c] = of_columns[c + 2];
    of_columns[kColumns - 2] = of_column[0];
    of_columns[kColumns - 1] = of_column[1];
  }

  // The next column of accumulators comes to the front.
  template <class T, int kM, int kN>
  static __device__ __forceinline__ void rotate(T (&acc)[kM][kN][4]) {
    for_slice<kM>([&](int m, int v) {
      const T first = acc[m][0][v];
#pragma unroll
      for (int n = 0; n + 1 < kN; ++n) acc[m][n][v] = acc[m][n + 1][v];
      acc[m][kN - 1][v] = first;
    });
  }
};

// ---- the kernel

// Only the interval epilogue leaves registers for a wide tile, and three products do not.
template <class Math, class Epilogue>
using ForwardTileOf = ForwardTile<Math, Epilogue::kLabels && Math::kProducts == 1>;

template <class Math, class Epilogue>
__global__ void __launch_bounds__(ForwardTileOf<Math, Epilogue>::kThreads,
                                  Math::kProducts == 1 ? Epilogue::kBlocksPerSm : 1)
    forward_kernel(const __grid_constant__ ForwardJob<typename Math::Accumulator> job) {
  using Tile = ForwardTileOf<Math, Epilogue>;
  using T = typename Math::Accumulator;
  constexpr int kM = Tile::kM, kN = Tile::kN, kTile = Tile::kTile;
  if (!wanted(job.shift_mode, *job.scalars)) return;

  MMCUDA_DYNAMIC_SHARED(shared);
  const ForwardShared<Tile> at(job.panels, job.resident, job.terms, job.strip);
  const int thread = static_cast<int>(threadIdx.x);
  const int warp_row = warp_id() / Tile::kWarpColumns, warp_column = warp_id() % Tile::kWarpColumns;

  int p = 0, q = static_cast<int>(blockIdx.x);  // macro tile
  if (job.self) {
    for (; q >= job.row_macro_tiles - p; ++p) q -= job.row_macro_tiles - p;
    q += p;
  } else {
    p = q / job.column_macro_tiles;
    q %= job.column_macro_tiles;
  }
  const bool triangle = job.self && p == q;
  const auto border = [](int tiles, int macro_tiles, int s) {
    return static_cast<int>(int64_t{tiles} * s / macro_tiles);
  };
  TileIterator walk;
  walk.row_begin = walk.i = border(job.row_tiles, job.row_macro_tiles, p);
  walk.row_end = border(job.row_tiles, job.row_macro_tiles, p + 1);
  walk.strip_begin = walk.j = border(job.column_tiles, job.column_macro_tiles, q);
  walk.column_end = border(job.column_tiles, job.column_macro_tiles, q + 1);
  walk.strip = job.strip;
  walk.triangle = triangle;
  const int first_strip = walk.strip_begin;

  const Combine combine{job.maximum != 0};
  const int column_stride = job.strip * kTile;
  T* const row_sums = reinterpret_cast<T*>(shared + at.row_sums);          // [warp columns, terms, kTile]
  T* const column_sums = reinterpret_cast<T*>(shared + at.column_sums);    // [warp rows, terms, strip * kTile]
  int* const row_labels = reinterpret_cast<int*>(shared + at.row_labels);  // [2, kTile]: begins, ends
  for (int s = thread; s < Tile::kWarpColumns * job.terms * kTile; s += Tile::kThreads) {
    row_sums[s] = combine.template neutral<T>();
  }
  for (int s = thread; s < Tile::kWarpRows * job.terms * column_stride; s += Tile::kThreads) {
    column_sums[s] = combine.template neutral<T>();
  }

  // Sums of the `count` items from `item` on, one warp's after the other, to slot `slot`; first: not yet written.
  const auto flush = [&](T* sums, int warps, int stride, int item, int count, int slot, bool first) {
    for (int c = thread; c < stride; c += Tile::kThreads) {
      for (int t = 0; t < job.terms; ++t) {
        T total = combine.template neutral<T>();
        for (int w = 0; w < warps; ++w) {
          T* const sum = sums + (w * job.terms + t) * stride + c;
          total = combine(total, *sum);
          *sum = combine.template neutral<T>();
        }
        if (c >= count) continue;
        T* const to = job.partial + (int64_t{t} * job.slots + slot) * job.anchors + item + c;
        *to = first ? total : combine(*to, total);
      }
    }
  };
  const auto flush_rows = [&](const TileIterator& w) {
    const bool first = triangle ? w.strip_begin <= w.i : w.strip_begin == first_strip;
    flush(row_sums, Tile::kWarpColumns, kTile, job.row.first + w.i * kTile, job.row.count - w.i * kTile, q, first);
  };
  const auto flush_columns = [&](const TileIterator& w) {
    if (!job.serves_columns) return;
    const int begin = w.strip_begin * kTile, end = min(w.strip_end() * kTile, job.column.count);
    flush(column_sums, Tile::kWarpRows, column_stride, job.column.first + begin, end - begin,
          triangle ? job.row_macro_tiles : p, true);
  };

  // The next panel of the next tile goes into `stage`.
  TileIterator load = walk;
  int load_panel = 0;
  const auto fill = [&](int stage) {
    if (!load.done()) {
      unsigned char* to = shared + at.stages + stage * at.stage_size;
      if (!job.resident) {
        copy_panel<kTile, Tile::kThreads>(to, job.row, load.i * kTile, load_panel);
        to += Tile::kPanelSize;
      }
      copy_panel<kTile, Tile::kThreads>(to, job.column, load.j * kTile, load_panel);
      if (++load_panel == job.panels) {
        const int j = load.j * kTile + thread;
        if (Epilogue::kLabels && thread < kTile) {
          const bool valid = j < job.column.count;
          cp_async_4(to + Tile::kPanelSize + 4 * thread, job.set[0].order + (valid ? job.column.first + j : 0), valid);
        }
        load_panel = 0;
        load.next();
      }
    }
    cp_async_commit();
  };
  // Tiles of another row: everybody is done with those of the last one.
  TileIterator before = walk;
  bool started = false;
  const auto begin_row = [&]() {
    __syncthreads();
    if (started) flush_rows(before);
    if (started && before.strip_begin != walk.strip_begin) flush_columns(before);
    started = true;
    if (job.resident) {
#pragma unroll 1
      for (int panel = 0; panel < job.panels; ++panel) {
        copy_panel<kTile, Tile::kThreads>(shared + panel * Tile::kPanelSize, job.row, walk.i * kTile, panel);
      }
    }
    if (Epilogue::kLabels && thread < kTile) {
      const int item = job.row.first + min(walk.i * kTile + thread, job.row.count - 1);
      cp_async_4(row_labels + thread, job.set[0].first + item, true);
      cp_async_4(row_labels + kTile + thread, job.set[0].last + item, true);
    }
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
  };

  if (job.panels) fill(0);
  int stage = 0;
  for (; !walk.done(); before = walk, walk.next()) {
    if (!started || walk.i != before.i || walk.strip_begin != before.strip_begin) begin_row();
    T acc[kM][kN][4];
    clear(acc);
    const unsigned char* y = shared;
    for (int panel = 0; panel < job.panels; ++panel) {
      cp_async_wait<0>();
      __syncthreads();
      fill(stage ^ 1);
      const unsigned char* const staged = shared + at.stages + stage * at.stage_size;
      const unsigned char* const x = job.resident ? shared + panel * Tile::kPanelSize : staged;
      y = job.resident ? staged : staged + Tile::kPanelSize;
      multiply_panel<Math>(acc, x, warp_row * 16 * kM, y, warp_column * 8 * kN);
      stage ^= 1;
    }
    const TilePairs<kM> pairs(job.row, job.column, walk.i * kTile, walk.j * kTile, kTile, kTile, job.distance,
                              warp_row * 16 * kM, warp_column * 8 * kN);
    const bool diagonal = triangle && walk.i == walk.j;  // its rows are its columns
    WarpSums<T> sums;
    sums.row = row_sums + warp_column * job.terms * kTile + warp_row * 16 * kM;
    sums.column =
        column_sums + warp_row * job.terms * column_stride + (walk.j - walk.strip_begin) * kTile + warp_column * 8 * kN;
    sums.row_stride = kTile;
    sums.column_stride = column_stride;
    sums.columns = job.serves_columns && !diagonal;
    sums.combine = combine;
    const int* const orders = reinterpret_cast<const int*>(y + Tile::kPanelSize) + warp_column * 8 * kN;
    const int g = lane_id() >> 2, t = lane_id() & 3;
    Epilogue::template add<Math>(job, acc, pairs, sums, orders + 2 * t, row_labels + warp_row * 16 * kM + g,
                                 row_labels + kTile + warp_row * 16 * kM + g);
  }
  __syncthreads();
  flush_rows(before);
  flush_columns(before);
}

}  // namespace mmcuda
