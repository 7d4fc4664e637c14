// The arguments of the operators in ops.cpp, checked: what the host functions of every device have in common.

#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tensors.h"

namespace mmcuda {

// The dtype of losses and statistics.
inline ScalarType compute_dtype(ScalarType features) {
  return features == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Kernels read where a pointer says: memory of another device would be none.
inline void check_device(const char* name, const Tensor& tensor, const Tensor& rows, const char* owner = "rows") {
  STD_TORCH_CHECK(tensor.device() == rows.device(), name, " must be on the device of ", owner);
}

// The rows and columns of an operator: N and M items of D features.
struct Features {
  Tensor rows;                    // [.., D] contiguous
  std::optional<Tensor> columns;  // [.., D] contiguous; none in self-contrast
  std::optional<int64_t> self_offset;
  int64_t n, m, d;

  Features(const Tensor& rows_, const std::optional<Tensor>& columns_, std::optional<int64_t> self_offset_)
      : rows(as_contiguous(rows_)), self_offset(self_offset_) {
    STD_TORCH_CHECK(rows.dim() >= 2 && rows.numel() > 0, "rows must be [.., D] and not empty");
    d = rows.size(rows.dim() - 1);
    n = m = rows.numel() / d;
    if (columns_) {
      columns = as_contiguous(*columns_);
      STD_TORCH_CHECK(columns->dim() >= 2 && columns->numel() > 0 && columns->size(columns->dim() - 1) == d,
                      "columns must be [.., ", d, "] and not empty");
      STD_TORCH_CHECK(columns->scalar_type() == rows.scalar_type(), "columns must have the dtype of rows");
      check_device("columns", *columns, rows);
      m = columns->numel() / d;
    } else {
      STD_TORCH_CHECK(!self_offset || *self_offset == 0, "self_offset needs columns");
      self_offset = 0;
    }
    STD_TORCH_CHECK(!self_offset || (*self_offset >= 0 && *self_offset <= m - n),
                    "self_offset must be in 0 .. M - N = ", m - n, ", got ", self_offset.value_or(0));
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max() - 4096;  // with padding
    STD_TORCH_CHECK(n < kMost && m < kMost, "rows and columns must be fewer than 2^31, got ", n, " and ", m);
  }

  bool self() const { return !columns; }
  int64_t items() const { return self() ? n : n + m; }
  // Pairs that an item of the rows (of the columns) takes part in.
  double row_pairs() const { return static_cast<double>(m - self_offset.has_value()); }
  double column_pairs(int64_t j) const {
    return static_cast<double>(n - (self_offset && j >= *self_offset && j < *self_offset + n));
  }
};

// Attributes of L items, as the operators get them.
struct Attributes {
  Tensor ranks;                         // [K, 3, L] contiguous
  std::optional<Tensor> relation_data;  // [U, 2, L] int32 contiguous; none where all relations are intervals
  std::vector<int64_t> words;           // K: of relation_data; 0: an interval, kGaussianWords: Gaussian, W > 0: overlap
  std::optional<Tensor> mask;

  static constexpr int64_t kGaussianWords = -1;

  Attributes(const Tensor& ranks_, const std::optional<Tensor>& relation_data_, std::vector<int64_t> words_,
             const std::optional<Tensor>& mask_, const Features& features)
      : ranks(as_contiguous(ranks_)), words(std::move(words_)) {
    const int64_t items = features.items();
    STD_TORCH_CHECK(
        ranks.dim() == 3 && ranks.size(1) == 3 && ranks.size(2) == items && ranks.scalar_type() == ScalarType::Int,
        "ranks must be [K, 3, ", items, "] int32");
    check_device("ranks", ranks, features.rows);
    STD_TORCH_CHECK(static_cast<int64_t>(words.size()) == ranks.size(0), "words must be one per attribute");
    STD_TORCH_CHECK(ranks.size(0) > 0 || mask_, "at least one attribute or a mask is needed");
    for (const int64_t count : words) {
      STD_TORCH_CHECK(count >= kGaussianWords, "words must be at least -1, got ", count);
    }
    const int64_t units = units_before(words.size());
    if (relation_data_) {
      relation_data = as_contiguous(*relation_data_);
      check_device("relation_data", *relation_data, features.rows);
    }
    STD_TORCH_CHECK(relation_data
                        ? relation_data->dim() == 3 && relation_data->size(0) == units && relation_data->size(1) == 2 &&
                              relation_data->size(2) == items && relation_data->scalar_type() == ScalarType::Int
                        : units == 0,
                    "relation_data must be [", units, ", 2, ", items, "] int32");
    if (mask_) {
      mask = as_contiguous(*mask_);
      STD_TORCH_CHECK(mask->dim() == 2 && mask->size(0) > 0 && mask->size(1) > 0 && features.m % mask->size(1) == 0 &&
                          (features.self_offset ? mask->size(0) == mask->size(1) : features.n % mask->size(0) == 0),
                      "mask must be [B, B'], N and M multiples of it");
      STD_TORCH_CHECK(mask->scalar_type() == compute_dtype(features.rows.scalar_type()),
                      "mask must be in the dtype of the computation");
      check_device("mask", *mask, features.rows);
    }
  }

  int64_t count() const { return ranks.size(0) + mask.has_value(); }
  // [3, L] of attribute k
  const int32_t* intervals(int64_t k) const { return ranks.const_data_ptr<int32_t>() + 3 * k * ranks.size(2); }
  // [L], or null unless the relation is a Gaussian
  const double* values(int64_t k) const {
    return words[k] == kGaussianWords ? reinterpret_cast<const double*>(data(k)) : nullptr;
  }
  // [W, 2, L], or null unless the relation is an overlap
  const int32_t* bits(int64_t k) const { return words[k] > 0 ? data(k) : nullptr; }

 private:
  // A unit is [2, L]: a word of bits, or L doubles.
  int64_t units_before(size_t k) const {
    int64_t units = 0;
    for (size_t i = 0; i < k; ++i) units += words[i] == kGaussianWords ? 1 : words[i];
    return units;
  }
  const int32_t* data(int64_t k) const {
    return relation_data->const_data_ptr<int32_t>() + 2 * units_before(k) * ranks.size(2);
  }
};

// Of label_ranks.
inline void check_labels(const std::vector<Tensor>& labels, const std::vector<double>& tolerances, int64_t views) {
  STD_TORCH_CHECK(!labels.empty() && labels.size() == tolerances.size(),
                  "tolerances must have one value per attribute, got ", tolerances.size(), " for ", labels.size());
  const int64_t samples = labels[0].numel();
  STD_TORCH_CHECK(samples <= std::numeric_limits<int32_t>::max(), "labels must have fewer than 2^31 samples, got ",
                  samples);
  STD_TORCH_CHECK(views > 0, "views must be positive, got ", views);
  for (size_t k = 0; k < labels.size(); ++k) {
    STD_TORCH_CHECK(labels[k].dim() == 1 && labels[k].numel() == samples, "labels must each be [", samples, "]");
    check_device("labels", labels[k], labels[0], "the first attribute");
    const bool integer = labels[k].scalar_type() == ScalarType::Long;
    STD_TORCH_CHECK(integer || labels[k].scalar_type() == ScalarType::Double, "labels must be int64 or float64");
    STD_TORCH_CHECK(!integer || tolerances[k] == 0, "integer labels are compared for equality, got tolerance ",
                    tolerances[k]);
  }
}

struct ContrastiveArguments {
  Features features;
  Attributes attributes;
  Tensor temperature;
  std::vector<double> weights;
  bool inside, one_positive, all;
  bool both_ways;
  bool reduced, mean;

  ContrastiveArguments(const Tensor& rows, const std::optional<Tensor>& columns, const Tensor& temperature_,
                       const Tensor& ranks, const std::optional<Tensor>& relation_data, std::vector<int64_t> words,
                       const std::optional<Tensor>& mask, std::vector<double> weights_,
                       std::optional<int64_t> self_offset, const std::string& positives, const std::string& denominator,
                       bool both_ways_, const std::string& reduction)
      : features(rows, columns, self_offset),
        attributes(ranks, relation_data, std::move(words), mask, features),
        temperature(temperature_),
        weights(std::move(weights_)),
        inside(positives == "inside"),
        one_positive(denominator == "one_positive"),
        all(denominator == "all"),
        both_ways(both_ways_),
        reduced(reduction != "none"),
        mean(reduction == "mean") {
    STD_TORCH_CHECK(static_cast<int64_t>(weights.size()) == attributes.count(), "weights must be one per attribute");
    STD_TORCH_CHECK(inside || positives == "outside", "positives must be 'outside' or 'inside', got ", positives);
    STD_TORCH_CHECK(all || one_positive || denominator == "negatives",
                    "denominator must be 'all', 'negatives' or 'one_positive', got ", denominator);
    STD_TORCH_CHECK(!(inside && one_positive), "denominator 'one_positive' has its positives outside the log");
    STD_TORCH_CHECK(!(both_ways && features.self()), "both_ways needs columns");
    STD_TORCH_CHECK(!reduced || mean || reduction == "sum", "reduction must be 'none', 'mean' or 'sum', got ",
                    reduction);
    STD_TORCH_CHECK(temperature.numel() == 1 && (temperature.scalar_type() == ScalarType::Float ||
                                                 temperature.scalar_type() == ScalarType::Double),
                    "temperature must be one number, float32 or float64");
    check_device("temperature", temperature, features.rows);
  }

  int64_t anchors() const { return both_ways ? features.items() : features.n; }
  int64_t sets() const { return attributes.count(); }
  ScalarType dtype() const { return compute_dtype(features.rows.scalar_type()); }
  // S: shift and sum of each exponential sum, then the mean sigmoids.
  int64_t statistics() const { return 2 * ((all ? 1 : sets()) + (inside ? sets() : 0)) + (one_positive ? sets() : 0); }
};

// What the backward gets beside the arguments of the forward.
struct Saved {
  Tensor grad_loss, statistics, totals;  // contiguous

  Saved(const ContrastiveArguments& args, const Tensor& grad_loss_, const Tensor& statistics_, const Tensor& totals_)
      : grad_loss(as_contiguous(grad_loss_)), statistics(as_contiguous(statistics_)), totals(as_contiguous(totals_)) {
    const int64_t losses = args.reduced ? 1 : args.anchors();
    STD_TORCH_CHECK(grad_loss.numel() == losses && grad_loss.scalar_type() == args.dtype(), "grad_loss must have ",
                    losses, " elements in the dtype of the loss");
    STD_TORCH_CHECK(statistics.dim() == 2 && statistics.size(0) == args.statistics() &&
                        statistics.size(1) == args.anchors() && statistics.scalar_type() == args.dtype(),
                    "statistics must be those of the forward");
    STD_TORCH_CHECK(totals.numel() == args.sets() * args.anchors() && totals.scalar_type() == ScalarType::Double,
                    "totals must be [", args.sets(), ", ", args.anchors(), "] float64");
    check_device("grad_loss", grad_loss, args.features.rows);
    check_device("statistics", statistics, args.features.rows);
    check_device("totals", totals, args.features.rows);
  }
};

struct PairMarginArguments {
  Features features;
  Attributes attributes;
  std::vector<double> weights;
  double margin;

  PairMarginArguments(const Tensor& rows, const std::optional<Tensor>& columns, const Tensor& ranks,
                      const std::optional<Tensor>& relation_data, std::vector<int64_t> words,
                      std::vector<double> weights_, std::optional<int64_t> self_offset, double margin_)
      : features(rows, columns, self_offset),
        attributes(ranks, relation_data, std::move(words), std::nullopt, features),
        weights(std::move(weights_)),
        margin(margin_) {
    STD_TORCH_CHECK(static_cast<int64_t>(weights.size()) == attributes.count(), "weights must be one per attribute");
  }

  ScalarType dtype() const { return compute_dtype(features.rows.scalar_type()); }
  // The incoming gradient of the losses.
  Tensor upstream(const Tensor& grad_losses) const {
    STD_TORCH_CHECK(grad_losses.numel() == features.n && grad_losses.scalar_type() == dtype(), "grad_losses must be [",
                    features.n, "] in the dtype of the losses");
    check_device("grad_losses", grad_losses, features.rows);
    return as_contiguous(grad_losses);
  }
};

}  // namespace mmcuda
