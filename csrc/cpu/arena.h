// Memory of one operator call, kept for the next call of the same thread: pages that are touched for the first time
// cost more than the smaller passes over them.

#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace mmcuda {

class Arena {
 public:
  Arena() : chunks_(std::exchange(kept(), {})) {}
  ~Arena() {
    // One chunk as large as all of them serves the next call, unless that is too much to keep.
    int64_t total = 0;
    for (const Chunk& chunk : chunks_) total += chunk.size;
    if (total > kMostKept) return;
    if (chunks_.size() > 1) {
      chunks_.clear();
      add_chunk(total);
    }
    kept() = std::move(chunks_);
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  void* allocate(int64_t bytes) {
    bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (chunks_.empty() || used_ + bytes > chunks_.back().size) add_chunk(bytes > kSmallest ? bytes : kSmallest);
    void* data = chunks_.back().data.get() + used_;
    used_ += bytes;
    return data;
  }

 private:
  static constexpr int64_t kAlignment = 64;
  static constexpr int64_t kSmallest = int64_t{1} << 20;
  static constexpr int64_t kMostKept = int64_t{64} << 20;

  struct Free {
    void operator()(char* data) const { ::operator delete(data, std::align_val_t{kAlignment}); }
  };
  struct Chunk {
    std::unique_ptr<char, Free> data;
    int64_t size;
  };

  std::vector<Chunk> chunks_;
  int64_t used_ = 0;  // of the last chunk

  void add_chunk(int64_t size) {
    chunks_.push_back(
        {std::unique_ptr<char, Free>(static_cast<char*>(::operator new(size, std::align_val_t{kAlignment}))), size});
    used_ = 0;
  }

  static std::vector<Chunk>& kept() {
    static thread_local std::vector<Chunk> chunks;
    return chunks;
  }
};

}  // namespace mmcuda
