// Memory of the dot products that a forward keeps for its backward. What a tensor gives back waits for the next
// forward: pages touched for the first time cost more than computing the products again.

#pragma once

#include <torch/csrc/stable/ops.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>
#include <mutex>
#include <new>
#include <vector>

#include "../contrastive.h"
#include "../tensors.h"

namespace mmcuda {

class SavedLogitsMemory {
 public:
  // A tensor [pairs, kBlockPairs], not initialised.
  static Tensor tensor(int64_t pairs, ScalarType dtype) {
    if (pairs == 0) return empty_cpu({0, kBlockPairs}, dtype);
    return torch::stable::from_blob(waiting().take(), {pairs, kBlockPairs}, {kBlockPairs, 1},
                                    {torch::headeronly::DeviceType::CPU}, dtype,
                                    [](void* data) { waiting().give_back(data); });
  }

 private:
  static constexpr std::align_val_t kHugePage{int64_t{1} << 21};  // fewer pages to look up
  static constexpr int64_t kBytes = (kMaxSavedBytes + int64_t(kHugePage) - 1) / int64_t(kHugePage) * int64_t(kHugePage);
  static constexpr size_t kMostWaiting = 2;

  std::mutex mutex_;
  std::vector<void*> buffers_;  // all of one size; only pages that were used take memory

  static SavedLogitsMemory& waiting() {
    static auto* const memory = new SavedLogitsMemory;  // never destroyed: tensors may outlive static objects
    return *memory;
  }

  void* take() {
    const std::lock_guard lock(mutex_);
    if (!buffers_.empty()) {
      void* data = buffers_.back();
      buffers_.pop_back();
      return data;
    }
    void* data = ::operator new(kBytes, kHugePage);
#ifdef __linux__
    madvise(data, kBytes, MADV_HUGEPAGE);
#endif
    return data;
  }

  void give_back(void* data) {
    const std::lock_guard lock(mutex_);
    if (buffers_.size() < kMostWaiting) {
      buffers_.push_back(data);
    } else {
      ::operator delete(data, kHugePage);
    }
  }
};

}  // namespace mmcuda
