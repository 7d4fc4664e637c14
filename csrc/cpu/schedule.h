// Which block pairs are computed when: in parallel, without two threads ever updating the same block, and with each
// block meeting its partners in the same order whatever the number of threads, so that results are bit-identical.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#ifndef MMCUDA_STD_THREADS
#include <torch/csrc/stable/ops.h>
#endif

namespace mmcuda {

// Calls work(begin, end) over parts of [0, count), at least `grain` long, in parallel on torch's threads. With
// MMCUDA_STD_THREADS on two threads of its own: the thread sanitizer does not see the barriers of OpenMP.
template <class Work>
void parallel_for(int64_t count, int64_t grain, const Work& work) {
#ifdef MMCUDA_STD_THREADS
  const int64_t half = count > grain ? (count + 1) / 2 : count;
  std::thread other([&] {
    if (half < count) work(half, count);
  });
  work(int64_t{0}, half);
  other.join();
#else
  torch::stable::parallel_for(0, count, grain, work);
#endif
}

inline int64_t max_threads() {
#ifdef MMCUDA_STD_THREADS
  return 2;
#else
  return torch::stable::get_num_threads();
#endif
}

// A block pair, and how many meetings each of the two has had before.
struct Meeting {
  int64_t a, b;
  int64_t before_a, before_b;
};

// Runs meet(a, b, p) for meetings p = 0, 1, ... of a plan. Threads take them in this order and start one when both
// blocks have finished their earlier ones: nobody waits for a whole round.
template <class Plan, class Meet>
void run_meetings(const Plan& plan, const Meet& meet) {
  std::atomic<int64_t> next{0};
  std::vector<std::atomic<int64_t>> finished(plan.blocks);
  const int64_t count = plan.count();
  parallel_for(std::min(max_threads(), plan.seats), 1, [&](int64_t, int64_t) {
    for (int64_t p = next++; p < count; p = next++) {
      const Meeting m = plan.meeting(p);
      while (finished[m.a].load(std::memory_order_acquire) != m.before_a) std::this_thread::yield();
      while (finished[m.b].load(std::memory_order_acquire) != m.before_b) std::this_thread::yield();
      meet(m.a, m.b, p);
      finished[m.a].store(m.before_a + 1, std::memory_order_release);
      if (m.a != m.b) finished[m.b].store(m.before_b + 1, std::memory_order_release);
    }
  });
}

// Every block with itself, then every two blocks, a < b: a round-robin tournament. One block stays seated, the others
// rotate. With an odd number of blocks the seated one is nobody, and whoever meets nobody has a bye.
struct Tournament {
  int64_t blocks;
  int64_t seats = blocks == 1 ? 1 : blocks / 2;  // meetings of a round
  int64_t circle = blocks - 1 + blocks % 2;      // blocks that rotate; rounds

  int64_t count() const { return blocks + (blocks == 1 ? 0 : circle * seats); }

  Meeting meeting(int64_t p) const {
    if (p < blocks) return {p, p, 0, 0};
    const int64_t round = (p - blocks) / seats;
    const int64_t seat = (p - blocks) % seats + blocks % 2;  // seat 0 is that of the block which does not rotate
    const int64_t a = (round + seat) % circle;
    const int64_t b = seat == 0 ? circle : (round - seat + circle) % circle;
    return {std::min(a, b), std::max(a, b), before(std::min(a, b), round), before(std::max(a, b), round)};
  }

 private:
  // One meeting with itself and one a round, but for the bye in round `block`.
  int64_t before(int64_t block, int64_t round) const { return 1 + round - (blocks % 2 && round > block); }
};

// Every row block with every column block, which are numbered behind the rows. In round t block i of the shorter side
// meets block (i + t) mod longer of the other.
struct CrossTournament {
  int64_t rows, columns;
  int64_t blocks = rows + columns;
  int64_t seats = std::min(rows, columns);
  int64_t rounds = std::max(rows, columns);

  int64_t count() const { return rows * columns; }

  Meeting meeting(int64_t p) const {
    const int64_t round = p / seats, shorter = p % seats, longer = (shorter + round) % rounds;
    const int64_t met = meetings(longer, round);
    if (rows <= columns) return {shorter, rows + longer, round, met};
    return {longer, rows + shorter, met, round};
  }

 private:
  // How many of the rounds before `round` block `longer` had a partner: those t with (longer - t) mod rounds < seats.
  int64_t meetings(int64_t longer, int64_t round) const {
    const int64_t direct = std::min(round, longer + 1);  // rounds until its partner's number wraps around
    const int64_t lowest = longer - direct + 1;
    const int64_t met = std::max<int64_t>(0, std::min(longer, seats - 1) - lowest + 1);
    return met + std::max<int64_t>(0, seats - (rounds - (round - direct)));
  }
};

}  // namespace mmcuda
