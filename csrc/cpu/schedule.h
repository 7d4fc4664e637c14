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

// Two meet, and how many meetings each of them has had before.
struct Meeting {
  int64_t a, b;
  int64_t before_a, before_b;
};

// Every player with itself, then every two, a < b: a round-robin tournament. One player stays seated, the others
// rotate. With an odd number of players the seated one is nobody, and whoever meets nobody has a bye.
struct Tournament {
  int64_t players;
  int64_t seats = players == 1 ? 1 : players / 2;  // meetings of a round
  int64_t circle = players - 1 + players % 2;      // players that rotate; rounds

  int64_t count() const { return players + (players == 1 ? 0 : circle * seats); }

  Meeting meeting(int64_t p) const {
    if (p < players) return {p, p, 0, 0};
    const int64_t round = (p - players) / seats;
    const int64_t seat = (p - players) % seats + players % 2;  // seat 0 is that of the player that does not rotate
    const int64_t a = (round + seat) % circle;
    const int64_t b = seat == 0 ? circle : (round - seat + circle) % circle;
    return {std::min(a, b), std::max(a, b), before(std::min(a, b), round), before(std::max(a, b), round)};
  }

 private:
  // One meeting with itself and one a round, but for the bye in round `player`.
  int64_t before(int64_t player, int64_t round) const { return 1 + round - (players % 2 && round > player); }
};

// Every row with every column, which are numbered behind the rows. In round t number i of the shorter side meets
// number (i + t) mod longer of the other.
struct CrossTournament {
  int64_t rows, columns;
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
  // How many of the rounds before `round` number `longer` had a partner: those t with (longer - t) mod rounds < seats.
  int64_t meetings(int64_t longer, int64_t round) const {
    const int64_t direct = std::min(round, longer + 1);  // rounds until its partner's number wraps around
    const int64_t lowest = longer - direct + 1;
    const int64_t met = std::max<int64_t>(0, std::min(longer, seats - 1) - lowest + 1);
    return met + std::max<int64_t>(0, seats - (rounds - (round - direct)));
  }
};

// The order in which blocks meet. Blocks are cut into groups of neighbours. Groups hold a tournament, and where two
// groups meet their blocks hold one: a thread that takes such a meeting of groups as a whole keeps their blocks, and
// what it adds to their gradients, in its own cache: where two cores share none, a block that changes hands in every
// meeting takes half the time of a backward pass. The order does not depend on the number of threads.
class BlockSchedule {
 public:
  // Every block with itself and with every other, a <= b.
  static BlockSchedule of_self(int64_t blocks) {
    BlockSchedule schedule(blocks, Tournament{blocks}.seats);
    const int64_t groups = schedule.cut(0, blocks);
    schedule.hold(Tournament{groups});
    return schedule;
  }

  // Every block of the rows with every block of the columns, which are numbered behind them.
  static BlockSchedule of_cross(int64_t rows, int64_t columns) {
    BlockSchedule schedule(rows + columns, std::min(rows, columns));
    const int64_t groups = schedule.cut(0, rows), others = schedule.cut(rows, columns);
    schedule.hold(CrossTournament{groups, others});
    return schedule;
  }

  // Calls meet(a, b, p) for every meeting p = 0, 1, ... Threads take them in this order, group by group if there are
  // enough groups for all, and start one when both blocks have finished their earlier ones: nobody waits for a round.
  template <class Meet>
  void run(const Meet& meet) const {
    std::atomic<int64_t> next{0};
    std::vector<std::atomic<int64_t>> finished(blocks_);
    const int64_t threads = std::min(max_threads(), seats_);
    const bool whole = threads <= group_seats_;
    const int64_t count = whole ? static_cast<int64_t>(meetings_.size()) : count_;
    const auto play = [&](const GroupMeeting& groups, int64_t i) {
      const Meeting m = groups.meeting(i);
      while (finished[m.a].load(std::memory_order_acquire) != m.before_a) std::this_thread::yield();
      while (finished[m.b].load(std::memory_order_acquire) != m.before_b) std::this_thread::yield();
      meet(m.a, m.b, groups.first + i);
      finished[m.a].store(m.before_a + 1, std::memory_order_release);
      if (m.a != m.b) finished[m.b].store(m.before_b + 1, std::memory_order_release);
    };
    parallel_for(threads, 1, [&](int64_t, int64_t) {
      for (int64_t p = next++; p < count; p = next++) {
        if (whole) {
          for (int64_t i = 0; i < meetings_[p].count(); ++i) play(meetings_[p], i);
        } else {
          const auto later = [](int64_t value, const GroupMeeting& groups) { return value < groups.first; };
          const GroupMeeting& groups = *(std::upper_bound(meetings_.begin(), meetings_.end(), p, later) - 1);
          play(groups, p - groups.first);
        }
      }
    });
  }

 private:
  static constexpr int64_t kGroups = 4;  // the fewer, the fewer blocks change hands; two threads need four

  struct Group {
    int64_t begin, size;  // blocks
    int64_t met = 0;      // how many blocks each of them has met so far
  };

  struct GroupMeeting {
    int64_t first;  // number of its first meeting of blocks
    Group a, b;

    bool self() const { return a.begin == b.begin; }
    int64_t count() const { return self() ? Tournament{a.size}.count() : CrossTournament{a.size, b.size}.count(); }
    Meeting meeting(int64_t i) const {
      const Meeting m = self() ? Tournament{a.size}.meeting(i) : CrossTournament{a.size, b.size}.meeting(i);
      return {a.begin + m.a, b.begin + m.b - (self() ? 0 : a.size), a.met + m.before_a, b.met + m.before_b};
    }
  };

  int64_t blocks_;
  int64_t seats_;            // meetings of blocks that can go on at once
  int64_t group_seats_ = 0;  // and of groups
  int64_t count_ = 0;        // meetings of blocks
  std::vector<Group> groups_;
  std::vector<GroupMeeting> meetings_;

  BlockSchedule(int64_t blocks, int64_t seats) : blocks_(blocks), seats_(seats) {}

  int64_t cut(int64_t begin, int64_t size) {
    const int64_t groups = std::min(kGroups, size);
    for (int64_t g = 0; g < groups; ++g) {
      groups_.push_back({begin + g * size / groups, (g + 1) * size / groups - g * size / groups});
    }
    return groups;
  }

  template <class OfGroups>
  void hold(const OfGroups& tournament) {
    group_seats_ = tournament.seats;
    for (int64_t p = 0; p < tournament.count(); ++p) {
      const Meeting m = tournament.meeting(p);
      Group &a = groups_[m.a], &b = groups_[m.b];
      meetings_.push_back({count_, a, b});
      count_ += meetings_.back().count();
      a.met += b.size;
      if (m.a != m.b) b.met += a.size;
    }
  }
};

}  // namespace mmcuda
