// The arguments of the operators in ops.cpp, checked: what the host functions of every device have in common.

#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "loss_family.h"
#include "tensors.h"

namespace mmcuda {

// The dtype of losses and saved_lse.
inline ScalarType compute_dtype(ScalarType features) {
  return features == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Kernels read where a pointer says: memory of another device would be none.
inline void check_device(const char* name, const Tensor& tensor, const Tensor& anchors, const char* owner = "anchors") {
  STD_TORCH_CHECK(tensor.device() == anchors.device(), name, " must be on the device of ", owner);
}

// The anchors and keys of an operator: N and M items of D features.
struct Features {
  Tensor anchors;              // [.., D] contiguous
  std::optional<Tensor> keys;  // [.., D] contiguous; none in self-contrast
  std::optional<int64_t> anchor_offset;
  int64_t n, m, d;

  Features(const Tensor& anchors_, const std::optional<Tensor>& keys_, std::optional<int64_t> anchor_offset_)
      : anchors(as_contiguous(anchors_)), anchor_offset(anchor_offset_) {
    STD_TORCH_CHECK(anchors.dim() >= 2 && anchors.numel() > 0, "anchors must be [.., D] and not empty");
    d = anchors.size(anchors.dim() - 1);
    n = m = anchors.numel() / d;
    if (keys_) {
      keys = as_contiguous(*keys_);
      STD_TORCH_CHECK(keys->dim() >= 2 && keys->numel() > 0 && keys->size(keys->dim() - 1) == d, "keys must be [.., ",
                      d, "] and not empty");
      STD_TORCH_CHECK(keys->scalar_type() == anchors.scalar_type(), "keys must have the dtype of anchors");
      check_device("keys", *keys, anchors);
      m = keys->numel() / d;
    } else {
      STD_TORCH_CHECK(!anchor_offset || *anchor_offset == 0, "anchor_offset needs keys");
      anchor_offset = 0;
    }
    STD_TORCH_CHECK(!anchor_offset || (*anchor_offset >= 0 && *anchor_offset <= m - n),
                    "anchor_offset must be in 0 .. M - N = ", m - n, ", got ", anchor_offset.value_or(0));
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max() - 4096;  // with padding
    STD_TORCH_CHECK(n < kMost && m < kMost, "anchors and keys must be fewer than 2^31, got ", n, " and ", m);
  }

  bool self() const { return !keys; }
  int64_t items() const { return self() ? n : n + m; }
  // Pairs that an item of the anchors (of the keys) takes part in.
  double anchor_pairs() const { return static_cast<double>(m - anchor_offset.has_value()); }
  double key_pairs(int64_t j) const {
    return static_cast<double>(n - (anchor_offset && j >= *anchor_offset && j < *anchor_offset + n));
  }
};

// Attributes of L items, as the operators get them.
struct Attributes {
  Tensor order_intervals;               // [K, 3, L] contiguous
  std::optional<Tensor> relation_data;  // [U, 2, L] int32 contiguous; none where all relations are intervals
  std::vector<int64_t> words;           // K: of relation_data; 0: an interval, kGaussianWords: Gaussian, W > 0: overlap
  std::optional<Tensor> mask;

  static constexpr int64_t kGaussianWords = -1;

  Attributes(const Tensor& intervals_, const std::optional<Tensor>& relation_data_, std::vector<int64_t> words_,
             const std::optional<Tensor>& mask_, const Features& features)
      : order_intervals(as_contiguous(intervals_)), words(std::move(words_)) {
    const int64_t items = features.items();
    STD_TORCH_CHECK(order_intervals.dim() == 3 && order_intervals.size(1) == 3 && order_intervals.size(2) == items &&
                        order_intervals.scalar_type() == ScalarType::Int,
                    "intervals must be [K, 3, ", items, "] int32");
    check_device("intervals", order_intervals, features.anchors);
    STD_TORCH_CHECK(static_cast<int64_t>(words.size()) == order_intervals.size(0), "words must be one per attribute");
    STD_TORCH_CHECK(order_intervals.size(0) > 0 || mask_, "at least one attribute or a mask is needed");
    for (const int64_t count : words) {
      STD_TORCH_CHECK(count >= kGaussianWords, "words must be at least -1, got ", count);
    }
    const int64_t units = units_before(words.size());
    if (relation_data_) {
      relation_data = as_contiguous(*relation_data_);
      check_device("relation_data", *relation_data, features.anchors);
    }
    STD_TORCH_CHECK(relation_data
                        ? relation_data->dim() == 3 && relation_data->size(0) == units && relation_data->size(1) == 2 &&
                              relation_data->size(2) == items && relation_data->scalar_type() == ScalarType::Int
                        : units == 0,
                    "relation_data must be [", units, ", 2, ", items, "] int32");
    if (mask_) {
      mask = as_contiguous(*mask_);
      STD_TORCH_CHECK(mask->dim() == 2 && mask->size(0) > 0 && mask->size(1) > 0 && features.m % mask->size(1) == 0 &&
                          (features.anchor_offset ? mask->size(0) == mask->size(1) : features.n % mask->size(0) == 0),
                      "mask must be [B, B'], N and M multiples of it");
      STD_TORCH_CHECK(mask->scalar_type() == compute_dtype(features.anchors.scalar_type()),
                      "mask must be in the dtype of the computation");
      check_device("mask", *mask, features.anchors);
    }
  }

  int64_t count() const { return order_intervals.size(0) + mask.has_value(); }
  // [3, L] of attribute k
  const int32_t* intervals(int64_t k) const {
    return order_intervals.const_data_ptr<int32_t>() + 3 * k * order_intervals.size(2);
  }
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
    return relation_data->const_data_ptr<int32_t>() + 2 * units_before(k) * order_intervals.size(2);
  }
};

// Of label_intervals.
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
  bool inside, sincere, all;
  bool symmetric;
  bool reduced, mean;

  ContrastiveArguments(const Tensor& anchors, const std::optional<Tensor>& keys, const Tensor& temperature_,
                       const Tensor& intervals, const std::optional<Tensor>& relation_data, std::vector<int64_t> words,
                       const std::optional<Tensor>& mask, std::vector<double> weights_,
                       std::optional<int64_t> anchor_offset, const std::string& positives,
                       const std::string& denominator, bool symmetric_, const std::string& reduction)
      : features(anchors, keys, anchor_offset),
        attributes(intervals, relation_data, std::move(words), mask, features),
        temperature(temperature_),
        weights(std::move(weights_)),
        inside(positives == "in"),
        sincere(denominator == "sincere"),
        all(denominator == "all"),
        symmetric(symmetric_),
        reduced(reduction != "none"),
        mean(reduction == "mean") {
    STD_TORCH_CHECK(static_cast<int64_t>(weights.size()) == attributes.count(), "weights must be one per attribute");
    STD_TORCH_CHECK(inside || positives == "out", "positives must be 'out' or 'in', got ", positives);
    STD_TORCH_CHECK(all || sincere || denominator == "negatives",
                    "denominator must be 'all', 'negatives' or 'sincere', got ", denominator);
    STD_TORCH_CHECK(!(inside && sincere), "denominator 'sincere' has its positives outside the log");
    STD_TORCH_CHECK(!(symmetric && features.self()), "symmetric needs keys");
    STD_TORCH_CHECK(!reduced || mean || reduction == "sum", "reduction must be 'none', 'mean' or 'sum', got ",
                    reduction);
    STD_TORCH_CHECK(temperature.numel() == 1 && (temperature.scalar_type() == ScalarType::Float ||
                                                 temperature.scalar_type() == ScalarType::Double),
                    "temperature must be one number, float32 or float64");
    check_device("temperature", temperature, features.anchors);
  }

  int64_t losses() const { return symmetric ? features.items() : features.n; }
  int64_t sets() const { return attributes.count(); }
  ScalarType dtype() const { return compute_dtype(features.anchors.scalar_type()); }
  LossFamily family() const { return {static_cast<int>(sets()), all, sincere, inside, symmetric}; }
};

// What the backward gets beside the arguments of the forward.
struct Saved {
  Tensor grad_loss, saved_lse, positive_counts;  // contiguous

  Saved(const ContrastiveArguments& args, const Tensor& grad_loss_, const Tensor& saved_lse_,
        const Tensor& positive_counts_)
      : grad_loss(as_contiguous(grad_loss_)),
        saved_lse(as_contiguous(saved_lse_)),
        positive_counts(as_contiguous(positive_counts_)) {
    const int64_t count = args.reduced ? 1 : args.losses();
    STD_TORCH_CHECK(grad_loss.numel() == count && grad_loss.scalar_type() == args.dtype(), "grad_loss must have ",
                    count, " elements in the dtype of the loss");
    STD_TORCH_CHECK(saved_lse.dim() == 2 && saved_lse.size(0) == args.family().saved_rows() &&
                        saved_lse.size(1) == args.losses() && saved_lse.scalar_type() == args.dtype(),
                    "saved_lse must be that of the forward");
    STD_TORCH_CHECK(
        positive_counts.numel() == args.sets() * args.losses() && positive_counts.scalar_type() == ScalarType::Double,
        "positive_counts must be [", args.sets(), ", ", args.losses(), "] float64");
    check_device("grad_loss", grad_loss, args.features.anchors);
    check_device("saved_lse", saved_lse, args.features.anchors);
    check_device("positive_counts", positive_counts, args.features.anchors);
  }
};

struct PairMarginArguments {
  Features features;
  Attributes attributes;
  std::vector<double> weights;
  double margin;

  PairMarginArguments(const Tensor& anchors, const std::optional<Tensor>& keys, const Tensor& intervals,
                      const std::optional<Tensor>& relation_data, std::vector<int64_t> words,
                      std::vector<double> weights_, std::optional<int64_t> anchor_offset, double margin_)
      : features(anchors, keys, anchor_offset),
        attributes(intervals, relation_data, std::move(words), std::nullopt, features),
        weights(std::move(weights_)),
        margin(margin_) {
    STD_TORCH_CHECK(static_cast<int64_t>(weights.size()) == attributes.count(), "weights must be one per attribute");
  }

  ScalarType dtype() const { return compute_dtype(features.anchors.scalar_type()); }
  // The incoming gradient of the losses.
  Tensor contiguous_grad(const Tensor& grad_losses) const {
    STD_TORCH_CHECK(grad_losses.numel() == features.n && grad_losses.scalar_type() == dtype(), "grad_losses must be [",
                    features.n, "] in the dtype of the losses");
    check_device("grad_losses", grad_losses, features.anchors);
    return as_contiguous(grad_losses);
  }
};

}  // namespace mmcuda
