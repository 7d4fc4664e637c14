// How the pairs are cut into thread blocks such that a device is busy to the end. Estimates from sizes alone: a pass
// takes as long as its waves of blocks. model.py says the same in Python.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace mmcuda {

struct MacroTiles {
  int rows, columns;  // how many macro tiles along each side
};

// Super-blocks of the forward: about four a multiprocessor, or one a tile, and not many more than that, since each item
// has as many slots for sums as there are in a row. Of these numbers, the one whose blocks fill the device best.
inline MacroTiles forward_macro_tiles(int row_tiles, int column_tiles, bool self, int multiprocessors) {
  const double wanted = 4. * multiprocessors;
  const auto size = [](int tiles, int macro_tiles) { return int64_t{(tiles + macro_tiles - 1) / macro_tiles}; };
  MacroTiles best{1, 1};
  int64_t least = INT64_MAX;
  const auto consider = [&](int rows, int columns) {
    const int64_t blocks = self ? int64_t{rows} * (rows + 1) / 2 : int64_t{rows} * columns;
    const int64_t waves = (blocks + multiprocessors - 1) / multiprocessors;
    const int64_t time = waves * size(row_tiles, rows) * size(column_tiles, columns);
    if (time >= least) return;
    least = time;
    best = {rows, columns};
  };
  const int side = static_cast<int>(std::sqrt(self ? 2 * wanted : wanted));
  if (self) {
    for (int s = std::min(side, row_tiles); s <= std::min(side * 3 / 2, row_tiles); ++s) consider(s, s);
    return best;
  }
  for (int rows = 1; rows <= std::min(2 * side, row_tiles); ++rows) {
    const int columns = std::max(1, static_cast<int>(wanted / rows));
    for (int c = std::min(columns, column_tiles); c <= std::min(columns * 3 / 2, column_tiles); ++c) consider(rows, c);
  }
  return best;
}

// Splits of the other side for `blocks` blocks of own rows, `resident` a multiprocessor at once. `traffic`: what
// writing and reading the partial gradients of one split takes beside all products.
inline int backward_splits(int64_t blocks, int64_t tiles, int resident, int multiprocessors, double traffic) {
  constexpr double kAlone = 0.7;  // how fast a block by itself is beside those of a full multiprocessor
  int best = 1;
  double least = INFINITY;
  for (int splits = 1; splits <= std::min<int64_t>(16, tiles); ++splits) {
    const int64_t all = blocks * splits, wave = int64_t{multiprocessors} * resident;
    const int64_t rest = all % wave, most = (rest + multiprocessors - 1) / multiprocessors;  // on a multiprocessor
    const double last = most == 1 && resident > 1 ? 1 / kAlone : static_cast<double>(most);
    const double time =
        (static_cast<double>(all / wave * resident) + last) * multiprocessors / static_cast<double>(all);
    const double cost = time + (splits > 1 ? splits * traffic : 0);
    if (cost >= least) continue;
    least = cost;
    best = splits;
  }
  return best;
}

}  // namespace mmcuda
