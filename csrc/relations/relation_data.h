// How the items of one attribute are related: r_ij as data, the same for the kernels of every device. What the
// relations mean is in ../contrastive.h.

#pragma once

#include <cstdint>

namespace mmcuda {

enum class Relation { kInterval, kGaussian, kOverlap, kMask };

// Arrays have one value per item.
template <class T, class Index>
struct RelationData {
  Relation relation;
  int words;           // kOverlap
  const Index* order;  // all but kMask: place in the order of values
  const Index* first;  // j is in the interval of i where first_i <= order_j <= last_i
  const Index* last;
  const T* value;     // kGaussian: the value is this
  const T* value_lo;  //   and what T cannot hold of it
  const Index* bits;  // kOverlap: [words, 2, items], 32 bits a word: the set, and which of its bits are known
  const T* mask;      // kMask: dense [.., mask_columns]
  int64_t mask_columns;
  const Index* mask_index;  // row or column of the mask that an item belongs to
};

}  // namespace mmcuda
