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
  // Starts with what the last call left behind: one chunk as large as all that it needed.
  Arena() {
    Kept& last = kept();
    if (last.chunk.size < last.wanted) {
      last.chunk = {};
      add_chunk(last.wanted);
    } else if (last.chunk.size > 0) {
      chunks_.push_back(std::move(last.chunk));
    }
    last.chunk = {};
  }
  ~Arena() {
    int64_t total = 0;
    for (const Chunk& chunk : chunks_) total += chunk.size;
    kept().wanted = total <= kMaxPooledBytes ? total : 0;
    if (chunks_.size() == 1 && total <= kMaxPooledBytes) kept().chunk = std::move(chunks_[0]);
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
  static constexpr int64_t kMaxPooledBytes = int64_t{64} << 20;  // bytes that each calling thread may keep for its life

  struct Free {
    void operator()(char* data) const { ::operator delete(data, std::align_val_t{kAlignment}); }
  };
  struct Chunk {
    std::unique_ptr<char, Free> data;
    int64_t size = 0;
  };
  struct Kept {
    Chunk chunk;
    int64_t wanted = 0;
  };

  std::vector<Chunk> chunks_;
  int64_t used_ = 0;  // of the last chunk

  void add_chunk(int64_t size) {
    chunks_.push_back(
        {std::unique_ptr<char, Free>(static_cast<char*>(::operator new(size, std::align_val_t{kAlignment}))), size});
    used_ = 0;
  }

  static Kept& kept() {
    static thread_local Kept last;
    return last;
  }
};

}  // namespace mmcuda
