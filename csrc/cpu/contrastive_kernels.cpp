// The CPU kernels, compiled once per instruction set (MMCUDA_ISA) from this one source with the compiler's vector
// types. A kernel takes one block pair: it computes the 96 x 96 dot products, then walks over them once for each term
// of the loss, and in the backward multiplies the resulting H with the features.

#include "tiles.h"

namespace mmcuda {
namespace {

// ---- sums over the pairs of a block pair ----------------------------------------------------------------------------

// A quantity of the pairs (r, c), (r, c + 1), ... as row r sees it and as the columns do.
template <class T>
struct Both {
  Vec<T> row, column;
};

template <class T>
struct Sum {
  static constexpr T kNeutral = 0;
  static Vec<T> combine(Vec<T> a, Vec<T> b) { return a + b; }
  static T lanes(Vec<T> v) { return reduce_add<T>(v); }
};

template <class T>
struct Maximum {
  static constexpr T kNeutral = -Simd<T>::kLargest;
  static Vec<T> combine(Vec<T> a, Vec<T> b) { return maximum<T>(a, b); }
  static T lanes(Vec<T> v) { return reduce_max<T>(v); }
};

// quantity(r, c) summed (or whatever Reduction does) over each row and each column
template <class T, class Reduction>
struct Reduced {
  alignas(64) T row[kBlock];
  alignas(64) T column[kBlock];

  template <class Quantity>
  Reduced(const Pairs<T>& pairs, const Quantity& quantity) {
    const Vec<T> neutral = Vec<T>{} + Reduction::kNeutral;
    alignas(64) T partial[kBlock][kLanes<T>];
    for (int64_t r = 0; r < pairs.rows; ++r) store(partial[r], neutral);
    for (int64_t c = 0; c < pairs.columns; c += kCols<T>) {
      Vec<T> of_column[kVecs];
      for (int64_t v = 0; v < kVecs; ++v) of_column[v] = neutral;
      for (int64_t r = 0; r < pairs.rows; ++r) {
        Vec<T> of_row = load<Vec<T>>(partial[r]);
#pragma GCC unroll 3
        for (int64_t v = 0; v < kVecs; ++v) {
          const Both<T> both = quantity(r, c + v * kLanes<T>);
          of_row = Reduction::combine(of_row, both.row);
          of_column[v] = Reduction::combine(of_column[v], both.column);
        }
        store(partial[r], of_row);
      }
      for (int64_t v = 0; v < kVecs; ++v) store(column + c + v * kLanes<T>, of_column[v]);
    }
    for (int64_t r = 0; r < pairs.rows; ++r) row[r] = Reduction::lanes(load<Vec<T>>(partial[r]));
  }

  // put(item, value) for the rows and, if wanted, for the columns
  template <class Put>
  void for_each_item(const Pairs<T>& pairs, bool columns, const Put& put) const {
    for (int64_t r = 0; r < pairs.rows; ++r) put(pairs.begin_i + r, row[r]);
    if (!columns) return;
    for (int64_t c = 0; c < pairs.columns; ++c) put(pairs.begin_j + c, column[c]);
  }
};

// ---- weights of pairs ----------------------------------------------------------------------------------------------

template <class T>
struct Every {
  Both<T> apply(int64_t, int64_t, Both<T> quantity) const { return quantity; }
};

template <class T, class R, bool kRelated>
struct By {
  R relation;
  Both<T> apply(int64_t r, int64_t c, Both<T> quantity) const {
    const Both<T> weight = relation(r, c);
    if constexpr (kRelated) return {weight.row * quantity.row, weight.column * quantity.column};
    return {(1 - weight.row) * quantity.row, (1 - weight.column) * quantity.column};
  }
};

template <class T>
Int<T> in_interval(const CpuRelation<T>& set, int64_t i, int64_t j) {
  const Int<T> order = load<Int<T>>(set.order + j);
  return (order >= set.first[i]) & (order <= set.last[i]);
}

// The Jaccard index of two sets over the bits known in both: 1 if both are empty there, 0 if no bit is known in both.
template <class T>
Vec<T> jaccard(const Batch<T>& batch, const CpuRelation<T>& set, int64_t i, int64_t j) {
  const auto count = [](Int<T> set) {  // of 32 bits, by adding neighbours
    auto v = (Bits<T>)set;
    v = (v & 0x55555555) + ((v >> 1) & 0x55555555);
    v = (v & 0x33333333) + ((v >> 2) & 0x33333333);
    v = (v & 0x0f0f0f0f) + ((v >> 4) & 0x0f0f0f0f);
    v = (v & 0x00ff00ff) + ((v >> 8) & 0x00ff00ff);
    return (Int<T>)((v & 0xffff) + (v >> 16));
  };
  Int<T> both = {}, either = {}, known = {};
  for (int64_t w = 0; w < set.words; ++w) {
    const auto* const bits = set.bits + 2 * w * batch.items;
    const auto* const knows = bits + batch.items;
    const Int<T> b = load<Int<T>>(bits + j), known_in_both = load<Int<T>>(knows + j) & knows[i];
    both += count(b & bits[i]);
    either += count((b | bits[i]) & known_in_both);
    known |= known_in_both;
  }
  const Vec<T> index =
      __builtin_convertvector(both, Vec<T>) / __builtin_convertvector(either != 0 ? either : Int<T>{} + 1, Vec<T>);
  return either != 0 ? index : known != 0 ? Vec<T>{} + 1 : Vec<T>{};
}

// Calls use(relation), relation(r, c) being r_kij and r_kji of attribute k.
template <class T, class Use>
inline void with_relation(const Batch<T>& batch, int64_t k, const Pairs<T>& pairs, const Use& use) {
  const CpuRelation<T>& set = batch.set[k];
  const int64_t i0 = pairs.begin_i, j0 = pairs.begin_j;
  const Vec<T> zero = {}, one = zero + 1;
  switch (set.relation) {
    case Relation::kInterval:
      return use([&, i0, j0](int64_t r, int64_t c) -> Both<T> {
        const Vec<T> weight = in_interval(set, i0 + r, j0 + c) ? one : zero;
        return {weight, weight};
      });
    case Relation::kGaussian:
      return use([&, i0, j0](int64_t r, int64_t c) -> Both<T> {
        const int64_t i = i0 + r, j = j0 + c;
        const Vec<T> value_lo = load<Vec<T>>(set.value_lo + j) - set.value_lo[i];
        const Vec<T> difference = load<Vec<T>>(set.value + j) - set.value[i] + value_lo;
        const Vec<T> gauss = minimum<T>(exp2<T>(-difference * difference), one);  // rounding must not lift it above 1
        const Vec<T> weight = in_interval(set, i, j) ? gauss : zero;
        return {weight, weight};
      });
    case Relation::kOverlap:
      return use([&, i0, j0](int64_t r, int64_t c) -> Both<T> {
        const Vec<T> weight = in_interval(set, i0 + r, j0 + c) ? one : jaccard(batch, set, i0 + r, j0 + c);
        return {weight, weight};
      });
    case Relation::kMask:
      return use([&, i0, j0](int64_t r, int64_t c) -> Both<T> {
        Both<T> weight = {};
        const int64_t a = set.mask_index[i0 + r];
        for (int64_t l = 0; l < kLanes<T>; ++l) {
          const int64_t b = set.mask_index[j0 + c + l];
          weight.row[l] = set.mask[a * set.mask_columns + b];
          // In cross-contrast the columns see the transposed relation.
          weight.column[l] = batch.self() ? set.mask[b * set.mask_columns + a] : weight.row[l];
        }
        return weight;
      });
  }
}

template <class T, class Use>
inline void with_weight(const Batch<T>& batch, const ExponentialSum<T>& sum, const Pairs<T>& pairs, const Use& use) {
  if (sum.weight == Weight::kEvery) return use(Every<T>{});
  with_relation(batch, sum.set, pairs, [&]<class R>(const R& relation) {
    if (sum.weight == Weight::kRelated) {
      use(By<T, R, true>{relation});
    } else {
      use(By<T, R, false>{relation});
    }
  });
}

// Calls use(weighted), weighted(r, c) being omega_ij exp((x_i.y_j - max_i) / tau) and omega_ji exp(.. max_j ..).
template <class T, class Use>
inline void with_exponentials(const Batch<T>& batch, const ExponentialSum<T>& sum, const Pairs<T>& pairs,
                              const Block<T>& s, const Use& use) {
  const T* const max_i = sum.max + pairs.begin_i;
  const T* const max_j = sum.max + pairs.begin_j;
  with_weight(batch, sum, pairs, [&](const auto& weight) {
    if (batch.constant_shift) {
      use([&, shift = *max_i, scale = batch.scale](int64_t r, int64_t c) {
        const Vec<T> e = exp2<T>((load<Vec<T>>(&s[r][c]) - shift) * scale);
        return weight.apply(r, c, {e, e});
      });
    } else {
      use([&, scale = batch.scale](int64_t r, int64_t c) {
        // Pairs of weight 0 may lie above the maximum: they must not overflow.
        const Vec<T> zero = {}, dot = load<Vec<T>>(&s[r][c]);
        const Vec<T> below_i = (dot - max_i[r]) * scale, below_j = (dot - load<Vec<T>>(max_j + c)) * scale;
        return weight.apply(r, c, {exp2<T>(minimum<T>(below_i, zero)), exp2<T>(minimum<T>(below_j, zero))});
      });
    }
  });
}

// z = log E - s in units of log2, of the pairs (r, c), ... under an attribute with these log2 E and shifts, [items]
template <class T>
Both<T> softplus_arguments(const Batch<T>& batch, const Pairs<T>& pairs, const Block<T>& s, const T* log_sum,
                           const T* max, int64_t r, int64_t c) {
  const int64_t i = pairs.begin_i + r, j = pairs.begin_j + c;
  const Vec<T> dot = load<Vec<T>>(&s[r][c]);
  return {log_sum[i] - (dot - max[i]) * batch.scale,
          load<Vec<T>>(log_sum + j) - (dot - load<Vec<T>>(max + j)) * batch.scale};
}

// ---- forward -------------------------------------------------------------------------------------------------------

// n_ki of attribute k
template <class T>
void count(const Batch<T>& batch, int64_t k, int64_t block_i, int64_t block_j, double* positive_counts) {
  const Pairs<T> pairs(batch, block_i, block_j);
  alignas(64) Block<T> exists;
  for (auto& row : exists) {
    for (T& value : row) value = 1;
  }
  pairs.exclude(exists, 0);
  with_relation(batch, k, pairs, [&](const auto& relation) {
    const Reduced<T, Sum<T>> total(pairs, [&](int64_t r, int64_t c) -> Both<T> {
      const Both<T> weight = relation(r, c);
      const Vec<T> one_or_zero = load<Vec<T>>(&exists[r][c]);
      return {weight.row * one_or_zero, weight.column * one_or_zero};
    });
    total.for_each_item(pairs, block_i != block_j, [&](int64_t item, T value) { positive_counts[item] += value; });
  });
}

template <class T, class E>
void maximum(const Batch<T>& batch, int64_t sums, const ExponentialSum<T>* sum, int64_t block_i, int64_t block_j,
             T* dots) {
  const Pairs<T> pairs(batch, block_i, block_j);
  alignas(64) Block<T> scratch;
  Block<T>& s = dot_products<E>(batch, pairs, dots, false, scratch);
  const Vec<T> lowest = Vec<T>{} - Simd<T>::kLargest, one = Vec<T>{} + 1;
  pairs.exclude(s, lowest[0]);
  for (int64_t n = 0; n < sums; ++n) {
    with_weight(batch, sum[n], pairs, [&](const auto& weight) {
      const Reduced<T, Maximum<T>> top(pairs, [&](int64_t r, int64_t c) -> Both<T> {
        const Vec<T> dot = load<Vec<T>>(&s[r][c]);
        const Both<T> omega = weight.apply(r, c, {one, one});
        return {omega.row > 0 ? dot : lowest, omega.column > 0 ? dot : lowest};
      });
      top.for_each_item(pairs, batch.serves_columns(block_i, block_j), [&](int64_t item, T value) {
        if (value > sum[n].max[item]) sum[n].max[item] = value;
      });
    });
  }
}

template <class T, class E>
void forward(const Batch<T>& batch, const ForwardTerms<T>& terms, int64_t block_i, int64_t block_j, T* dots) {
  const Pairs<T> pairs(batch, block_i, block_j);
  const bool columns = batch.serves_columns(block_i, block_j);
  alignas(64) Block<T> scratch;
  const bool maxima = !batch.constant_shift;  // the pass for them went before
  Block<T>& s = dot_products<E>(batch, pairs, dots, maxima, scratch);

  for (int64_t r = pairs.rows; dots && r < kBlock; ++r) __builtin_memset(s[r], 0, sizeof(s[r]));  // all kept is defined
  pairs.exclude(s, -Simd<T>::kLargest);                                                           // exp is 0 there
  for (int64_t n = 0; n < terms.sums; ++n) {
    with_exponentials(batch, terms.sum[n], pairs, s, [&](const auto& weighted) {
      Reduced<T, Sum<T>>(pairs, weighted).for_each_item(pairs, columns, [&](int64_t item, T value) {
        terms.sum[n].sum[item] += value;
      });
    });
  }
  if (!terms.positive) return;
  pairs.exclude(s, 0);
  for (int64_t k = 0; k < batch.sets; ++k) {
    with_relation(batch, k, pairs, [&](const auto& relation) {
      const Reduced<T, Sum<T>> linear(pairs, [&](int64_t r, int64_t c) -> Both<T> {
        const Vec<T> dot = load<Vec<T>>(&s[r][c]);
        const Both<T> weight = relation(r, c);
        return {weight.row * dot, weight.column * dot};
      });
      linear.for_each_item(pairs, columns, [&](int64_t item, T value) {
        terms.linear[item] += terms.positive[k * batch.items + item] * value;
      });
    });
  }
}

template <class T, class E>
void softplus(const Batch<T>& batch, const SoftplusTerms<T>& terms, int64_t block_i, int64_t block_j, T* dots) {
  const Pairs<T> pairs(batch, block_i, block_j);
  const bool columns = batch.serves_columns(block_i, block_j);
  alignas(64) Block<T> scratch;
  Block<T>& s = dot_products<E>(batch, pairs, dots, true, scratch);
  pairs.exclude(s, Simd<T>::kLargest);  // softplus and sigmoid of minus infinity are 0

  for (int64_t k = 0; k < batch.sets; ++k) {
    const T* const log_sum = terms.log_sum + k * batch.items;
    const T* const max = terms.negatives[k].max;
    const auto arguments = [&](int64_t r, int64_t c) {
      return softplus_arguments(batch, pairs, s, log_sum, max, r, c);
    };
    with_relation(batch, k, pairs, [&](const auto& relation) {
      const Reduced<T, Sum<T>> value(pairs, [&](int64_t r, int64_t c) -> Both<T> {
        const Both<T> weight = relation(r, c), z = arguments(r, c);
        return {weight.row * softplus2<T>(z.row), weight.column * softplus2<T>(z.column)};
      });
      value.for_each_item(pairs, columns, [&](int64_t item, T total) {
        terms.softplus[item] += terms.positive[k * batch.items + item] * total;
      });
      const Reduced<T, Sum<T>> slope(pairs, [&](int64_t r, int64_t c) -> Both<T> {
        const Both<T> weight = relation(r, c), z = arguments(r, c);
        return {weight.row * sigmoid2<T>(z.row), weight.column * sigmoid2<T>(z.column)};
      });
      slope.for_each_item(pairs, columns,
                          [&](int64_t item, T total) { terms.sigmoid[k * batch.items + item] += total; });
    });
  }
}

// ---- backward ------------------------------------------------------------------------------------------------------

// gradient += H Y for the rows, H^T X for the columns
template <class T, class E>
void add_products(const Batch<T>& batch, const Pairs<T>& pairs, const Block<T>& h, bool rows, bool columns,
                  T* const* gradient) {
  if (rows) {
    add_product<E>(batch, pairs, h, gradient);
  }
  if (columns) {
    add_transposed_product<E>(batch, pairs, h, gradient);
  }
}

template <class T, class E>
void backward(const Batch<T>& batch, const BackwardTerms<T>& terms, int64_t block_i, int64_t block_j, const T* dots) {
  const Pairs<T> pairs(batch, block_i, block_j);
  alignas(64) Block<T> scratch;
  alignas(64) Block<T> h;
  if (!dots) dot_products<E>(batch, pairs, scratch);
  const Block<T>& s = dots ? *reinterpret_cast<const Block<T>*>(dots) : scratch;

  for (int64_t n = 0; n < terms.sums; ++n) {
    const T* const of_i = terms.sum[n].coefficient + pairs.begin_i;
    const T* const of_j = terms.sum[n].coefficient + pairs.begin_j;
    with_exponentials(batch, terms.sum[n], pairs, s, [&](const auto& weighted) {
      const auto value = [&](int64_t r, int64_t c) {
        const Both<T> e = weighted(r, c);
        return e.row * of_i[r] + e.column * load<Vec<T>>(of_j + c);
      };
      if (n == 0) {
        pairs.for_each([&](int64_t r, int64_t c) { store(&h[r][c], value(r, c)); });
      } else {
        pairs.for_each([&](int64_t r, int64_t c) { store(&h[r][c], load<Vec<T>>(&h[r][c]) + value(r, c)); });
      }
    });
  }
  for (int64_t k = 0; terms.positive && k < batch.sets; ++k) {
    const T* const of_i = terms.positive + k * batch.items + pairs.begin_i;
    const T* const of_j = terms.positive + k * batch.items + pairs.begin_j;
    with_relation(batch, k, pairs, [&](const auto& relation) {
      if (!terms.log_sum) {
        pairs.for_each([&](int64_t r, int64_t c) {
          const Both<T> weight = relation(r, c);
          const Vec<T> value = load<Vec<T>>(&h[r][c]) - weight.row * of_i[r];
          store(&h[r][c], value - weight.column * load<Vec<T>>(of_j + c));
        });
        return;
      }
      const T* const log_sum = terms.log_sum + k * batch.items;
      const T* const max = terms.sum[k].max;
      pairs.for_each([&](int64_t r, int64_t c) {
        const Both<T> weight = relation(r, c), z = softplus_arguments(batch, pairs, s, log_sum, max, r, c);
        const Vec<T> value = load<Vec<T>>(&h[r][c]) - weight.row * of_i[r] * sigmoid2<T>(z.row);
        store(&h[r][c], value - weight.column * load<Vec<T>>(of_j + c) * sigmoid2<T>(z.column));
      });
    });
  }
  pairs.exclude(h, 0);
  add_products<T, E>(batch, pairs, h, terms.grad_rows, terms.grad_columns && block_i != block_j, terms.gradient);
}

// ---- pair margin loss ----------------------------------------------------------------------------------------------

// |x|^2 + |y|^2 - 2 x.y loses the digits of a distance that is small beside the norms: such pairs take their
// differences.
template <class T>
constexpr T kNear = T(0.01);

// Calls use(k, x - y) for the features k, k + 1, ... of two items; padding is 0.
template <class E, class T, class Use>
void for_differences(const Batch<T>& batch, int64_t i, int64_t j, const Use& use) {
  const E* const x = static_cast<const E*>(batch.blocks[i / kBlock]) + i % kBlock * batch.dp;
  const E* const y = static_cast<const E*>(batch.blocks[j / kBlock]) + j % kBlock * batch.dp;
  for (int64_t k = 0; k < batch.dp; k += kLanes<T>) {
    Vec<T> difference;
    for (int64_t l = 0; l < kLanes<T>; ++l) difference[l] = widen(x[k + l]) - widen(y[k + l]);
    use(k, difference);
  }
}

// Calls visit(r, c) for the pairs whose squared distance in `squares` is small beside their norms.
template <class T, class Visit>
void for_near_pairs(const Batch<T>& batch, const Pairs<T>& pairs, const Block<T>& squares, const Visit& visit) {
  for (int64_t r = 0; r < pairs.rows; ++r) {
    for (int64_t c = 0; c < pairs.columns; ++c) {
      const T norms = batch.squares[pairs.begin_i + r] + batch.squares[pairs.begin_j + c];
      if (squares[r][c] < kNear<T> * norms) visit(r, c);
    }
  }
}

template <class T, class E>
void squared_distances(const Batch<T>& batch, const Pairs<T>& pairs, Block<T>& squares) {
  dot_products<E>(batch, pairs, squares);
  pairs.for_each([&](int64_t r, int64_t c) {
    const Vec<T> norms = batch.squares[pairs.begin_i + r] + load<Vec<T>>(batch.squares + pairs.begin_j + c);
    store(&squares[r][c], maximum<T>(norms - 2 * load<Vec<T>>(&squares[r][c]), Vec<T>{}));
  });
  for_near_pairs(batch, pairs, squares, [&](int64_t r, int64_t c) {
    Vec<T> sum = {};
    for_differences<E>(batch, pairs.begin_i + r, pairs.begin_j + c, [&](int64_t, Vec<T> d) { sum += d * d; });
    squares[r][c] = reduce_add<T>(sum);
  });
}

// block[r][c] = value(r, c, R, W - R, squared distance), 0 where there is no pair; see contrastive.h
template <class T, class Value>
void margin_block(const Batch<T>& batch, const MarginTerms<T>& terms, const Pairs<T>& pairs, const Block<T>& squares,
                  Block<T>& block, const Value& value) {
  pairs.for_each([&](int64_t r, int64_t c) { store(&block[r][c], Vec<T>{}); });
  T all = 0;
  for (int64_t k = 0; k < batch.sets; ++k) {
    const T w = terms.weights[k];
    all += w;
    with_relation(batch, k, pairs, [&](const auto& relation) {
      pairs.for_each(
          [&](int64_t r, int64_t c) { store(&block[r][c], load<Vec<T>>(&block[r][c]) + w * relation(r, c).row); });
    });
  }
  pairs.for_each([&](int64_t r, int64_t c) {
    const Vec<T> related = load<Vec<T>>(&block[r][c]);
    store(&block[r][c], value(r, c, related, all - related, load<Vec<T>>(&squares[r][c])));
  });
  pairs.exclude(block, 0);
}

template <class T>
Vec<T> square_root(Vec<T> v) {
  for (int64_t l = 0; l < kLanes<T>; ++l) v[l] = sizeof(T) == 4 ? T(__builtin_sqrtf(v[l])) : T(__builtin_sqrt(v[l]));
  return v;
}

template <class T, class E>
void margin(const Batch<T>& batch, const MarginTerms<T>& terms, int64_t block_i, int64_t block_j) {
  const Pairs<T> pairs(batch, block_i, block_j);
  alignas(64) Block<T> squares;
  alignas(64) Block<T> loss;
  squared_distances<T, E>(batch, pairs, squares);
  margin_block(batch, terms, pairs, squares, loss, [&](int64_t, int64_t, Vec<T> like, Vec<T> unlike, Vec<T> square) {
    const Vec<T> gap = maximum<T>(terms.margin - square_root<T>(square), Vec<T>{});
    return like * square + unlike * gap * gap;
  });
  const Reduced<T, Sum<T>> total(pairs, [&](int64_t r, int64_t c) -> Both<T> {
    const Vec<T> l = load<Vec<T>>(&loss[r][c]);
    return {l, l};
  });
  total.for_each_item(pairs, block_i != block_j, [&](int64_t item, T value) { terms.loss[item] += value; });
}

template <class T, class E>
void margin_backward(const Batch<T>& batch, const MarginTerms<T>& terms, int64_t block_i, int64_t block_j) {
  const Pairs<T> pairs(batch, block_i, block_j);
  const bool columns = terms.grad_columns && block_i != block_j;
  alignas(64) Block<T> squares;
  alignas(64) Block<T> b;  // -B
  squared_distances<T, E>(batch, pairs, squares);
  margin_block(batch, terms, pairs, squares, b, [&](int64_t r, int64_t c, Vec<T> like, Vec<T> unlike, Vec<T> square) {
    const Vec<T> grad_output =
        terms.grad_output[pairs.begin_i + r] + load<Vec<T>>(terms.grad_output + pairs.begin_j + c);
    const Vec<T> zero = {}, distance = square_root<T>(square);
    // Of two equal points the distance has no direction: no force.
    const Vec<T> push = maximum<T>(terms.margin - distance, zero) / (square > 0 ? distance : zero + 1);
    return grad_output * ((square > 0 ? unlike * push : zero) - like);
  });
  // A near pair's force is large and its difference small: it is added by itself, and left out of sums and products.
  for_near_pairs(batch, pairs, squares, [&](int64_t r, int64_t c) {
    T* const of_i = terms.grad_rows ? terms.gradient[block_i] + r * batch.dp : nullptr;
    T* const of_j = columns ? terms.gradient[block_j] + c * batch.dp : nullptr;
    for_differences<E>(batch, pairs.begin_i + r, pairs.begin_j + c, [&](int64_t k, Vec<T> difference) {
      const Vec<T> force = b[r][c] * difference;
      if (of_i) store(of_i + k, load<Vec<T>>(of_i + k) - force);
      if (of_j) store(of_j + k, load<Vec<T>>(of_j + k) + force);
    });
    b[r][c] = 0;
  });
  const Reduced<T, Sum<T>> total(pairs, [&](int64_t r, int64_t c) -> Both<T> {
    const Vec<T> value = load<Vec<T>>(&b[r][c]);
    return {value, value};
  });
  total.for_each_item(pairs, columns, [&](int64_t item, T value) { terms.sum[item] -= value; });
  add_products<T, E>(batch, pairs, b, terms.grad_rows, columns, terms.gradient);
}

// ---- the table -----------------------------------------------------------------------------------------------------

// Features of dtype Source, packed as E.
template <class E, class Source>
constexpr auto kernels() {
  using T = typename Accumulate<E>::type;
  static_assert(kBlock % kRows == 0 && kBlock % kCols<T> == 0 && kBlock % kProductRows == 0);
  return Kernels<T>{2 * kLanes<T>,  sizeof(E),     sizeof(E) < sizeof(T), pack<E, Source>,
                    count<T>,       maximum<T, E>, forward<T, E>,         softplus<T, E>,
                    backward<T, E>, margin<T, E>,  margin_backward<T, E>};
}

#ifdef __AVX512BF16__
using PackedBfloat16 = bfloat16;
#else
using PackedBfloat16 = float;
#endif

}  // namespace

#define MMCUDA_STRING(name) #name
#define MMCUDA_NAME(name) MMCUDA_STRING(name)
#define MMCUDA_SYMBOL_OF(name) k_##name
#define MMCUDA_SYMBOL(name) MMCUDA_SYMBOL_OF(name)
extern const InstructionSet MMCUDA_SYMBOL(MMCUDA_ISA);
constexpr InstructionSet MMCUDA_SYMBOL(MMCUDA_ISA) = {MMCUDA_NAME(MMCUDA_ISA), kernels<float, float>(),
                                                      kernels<double, double>(), kernels<PackedBfloat16, bfloat16>()};

}  // namespace mmcuda
