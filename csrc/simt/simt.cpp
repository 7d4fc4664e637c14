// Fibers, the order in which they run, and the collectives of warps and blocks. Compile without -fsanitize=thread:
// values that lanes exchange here are in registers on a GPU, which is no race. Sanitizers are told of fibers where they
// are linked in: their functions are weak symbols.

#include "simt.h"

#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "context.h"

#ifdef __SANITIZE_THREAD__
#error "compile simt.cpp without -fsanitize=thread"
#endif

extern "C" {
#define MMCUDA_WEAK __attribute__((weak))
MMCUDA_WEAK void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
MMCUDA_WEAK void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
MMCUDA_WEAK void __sanitizer_set_death_callback(void (*callback)());
MMCUDA_WEAK void __asan_poison_memory_region(const volatile void* p, size_t size);
MMCUDA_WEAK void __asan_unpoison_memory_region(const volatile void* p, size_t size);
MMCUDA_WEAK void* __tsan_get_current_fiber();
MMCUDA_WEAK void* __tsan_create_fiber(unsigned flags);
MMCUDA_WEAK void __tsan_switch_to_fiber(void* fiber, unsigned flags);
MMCUDA_WEAK void __tsan_acquire(void* p);
MMCUDA_WEAK void __tsan_release(void* p);
MMCUDA_WEAK void __tsan_ignore_thread_begin();
MMCUDA_WEAK void __tsan_ignore_thread_end();
}

namespace mmcuda::simt {

const Thread* thread;
Block block;

namespace {

constexpr size_t kPage = 4096, kStack = 256 * 1024, kMaxShared = 227 * 1024, kMaxThreads = 1024;
// As aligned as the kernels may assume, and no more.
constexpr size_t kSharedOffset = kPage + 128, kSharedRegion = kMaxShared + 2 * kPage + 1024;

struct Context {
  Registers registers;
  const void* stack = nullptr;
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // of the address sanitizer
  void* tsan = nullptr;
};

struct Fiber : Thread {
  Context context;
  unsigned number;  // of the thread in its block

  // What it waits for: a collective, if its lane is in Warp::waiting, or else the barrier.
  const char* name;
  uint32_t mask;
  Site site;
  void* arguments;

  std::deque<Copy> copies;    // not landed yet
  std::deque<size_t> groups;  // how many of them each closed group has
  size_t open = 0;            // and how many the open one
  Copy landing;
};

struct Warp {
  uint32_t ready, waiting, returned;  // lanes; those in none run or are at the barrier
};

// The thread sanitizer orders those who meet at an address. Two in turn: who leaves late learns nothing of the next
// time.
struct Meetings {
  unsigned char address[2];
  unsigned count = 0;
  void* current() { return &address[count & 1]; }
};
struct BlockMeetings {
  Meetings threads;
  std::map<uint32_t, Meetings> warps[kMaxThreads / 32];  // by mask
};
// While one of these lives, the thread sanitizer takes no note of what this thread does.
struct Unseen {
  Unseen() {
    if (__tsan_ignore_thread_begin) {
      __tsan_ignore_thread_begin();
    }
  }
  ~Unseen() {
    if (__tsan_ignore_thread_end) {
      __tsan_ignore_thread_end();
    }
  }
};

struct Machine {
  const char* signature;  // of launch<kernel>
  void (*body)(const void*);
  const void* argument;

  // Two, so that the thread sanitizer sees neighbouring blocks as threads that have nothing to do with each other: a
  // fiber that serves one and then the other would order them.
  std::deque<Fiber> pools[2];
  std::vector<Fiber*> threads;  // of the block
  Fiber* running = nullptr;
  Context host;
  Context* previous = nullptr;  // that switched to this one
  Warp warps[kMaxThreads / 32];
  uint32_t ready_warps;
  unsigned returned, arrived;  // threads that have left the kernel, that are at the barrier
  Site barrier;
  std::unique_ptr<BlockMeetings> meetings;
  unsigned char launched, finished;  // addresses where host and threads are ordered
  uint64_t random = 0;               // 0: lanes and warps in their natural order
  unsigned char* region = nullptr;   // kSharedRegion bytes around shared memory
};

// Never destroyed: threads that end late may still launch.
Machine& machine = *new Machine;

// ---- messages

void print_place(const Fiber& fiber) {
  const char* begin = std::strstr(machine.signature, "kKernel = ");
  begin = begin ? begin + std::strlen("kKernel = ") : machine.signature;
  const size_t length = std::strcspn(begin, ";]");
  const auto [x, y, z] = block.index;
  const auto [i, j, k] = fiber.index;
  std::fprintf(stderr, "in kernel %.*s, block (%u, %u, %u), thread (%u, %u, %u)\n", int(length), begin, x, y, z, i, j,
               k);
}

[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(const Fiber& fiber, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::fputs("simt: error: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputs(" ", stderr);
  print_place(fiber);
  std::abort();
}

std::string place(const Site& site) { return site.file_name() + (":" + std::to_string(site.line())); }

std::string state(unsigned number) {
  if (number >= machine.threads.size()) {
    return "does not exist";
  }
  const Fiber& fiber = *machine.threads[number];
  const Warp& warp = machine.warps[number / 32];
  if (warp.returned >> fiber.lane & 1) {
    return "has returned from the kernel";
  }
  if (warp.waiting >> fiber.lane & 1) {
    char mask[9];
    std::snprintf(mask, sizeof(mask), "%08x", fiber.mask);
    return std::string("waits at ") + fiber.name + " (mask " + mask + ", " + place(fiber.site) + ")";
  }
  return "waits at __syncthreads (" + place(fiber.site) + ")";
}

// Nobody can run: names a thread and one that it waits for in vain.
[[noreturn]] void fail_deadlock() {
  for (const Fiber* fiber : machine.threads) {
    const Warp& warp = machine.warps[fiber->number / 32];
    if (warp.waiting >> fiber->lane & 1) {
      for (unsigned lane = 0; lane < 32; ++lane) {
        if (fiber->mask >> lane & 1 && !(warp.waiting >> lane & 1)) {
          const unsigned other = fiber->number / 32 * 32 + lane;
          fail(*fiber, "divergence: %s (mask %08x, %s) waits for thread %u, which %s,", fiber->name, fiber->mask,
               place(fiber->site).c_str(), other, state(other).c_str());
        }
      }
    }
  }
  for (const Fiber* fiber : machine.threads) {
    const Warp& warp = machine.warps[fiber->number / 32];
    if (warp.returned >> fiber->lane & 1) {
      fail(*fiber, "divergence: the thread has returned from the kernel, but others wait for it at __syncthreads (%s),",
           place(machine.barrier).c_str());
    }
  }
  fail(*machine.threads[0], "deadlock,");  // cannot be
}

bool same(const char* a, const char* b) { return a == b || !std::strcmp(a, b); }
bool same(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() && same(a.file_name(), b.file_name());
}

// ---- the order of fibers

void switch_to(Context& from, Context& to) {
  machine.previous = &from;
  if (__sanitizer_start_switch_fiber) {
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
  }
  if (__tsan_switch_to_fiber) {
    __tsan_switch_to_fiber(to.tsan, 1);  // 1: without an order between the two
  }
  from.registers.switch_to(to.registers);
}

// Behind every switch, on the new stack.
void arrive(Context& self) {
  if (__sanitizer_finish_switch_fiber) {
    Context& previous = *machine.previous;
    __sanitizer_finish_switch_fiber(self.fake_stack, &previous.stack, &previous.stack_bytes);
  }
}

void run_fiber(Context& from, Fiber& fiber) {
  machine.running = &fiber;
  thread = &fiber;
  switch_to(from, fiber.context);
  arrive(from);
}

unsigned draw() {  // xorshift
  uint64_t& x = machine.random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return static_cast<unsigned>(x >> 32);
}

// A bit that is set: the lowest, or one from the seed.
unsigned pick(uint32_t bits) {
  const unsigned first = machine.random ? draw() % 32 : 0;
  return (std::countr_zero(std::rotr(bits, int(first))) + first) % 32;
}

void make_ready(unsigned warp, uint32_t lanes) {
  machine.warps[warp].ready |= lanes;
  if (machine.warps[warp].ready) {
    machine.ready_warps |= 1u << warp;
  }
}

Fiber& next_fiber(unsigned warp) {
  if (!machine.ready_warps) {
    fail_deadlock();
  }
  const bool stay = machine.ready_warps >> warp & 1 && !(machine.random && draw() % 64 == 0);
  warp = stay ? warp : pick(machine.ready_warps);
  uint32_t& ready = machine.warps[warp].ready;
  const unsigned lane = pick(ready);
  ready &= ~(1u << lane);
  if (!ready) {
    machine.ready_warps &= ~(1u << warp);
  }
  return *machine.threads[32 * warp + lane];
}

void suspend() {
  Fiber& self = *machine.running;
  Fiber& next = next_fiber(self.number / 32);
  if (&next != &self) {
    run_fiber(self.context, next);
  }
}

// A fiber serves one block after the other.
void serve() {
  Fiber& self = *machine.running;
  arrive(self.context);
  while (true) {
    if (__tsan_acquire) {
      __tsan_acquire(&machine.launched);
    }
    self.copies.clear();
    self.groups.clear();
    self.open = 0;
    machine.body(machine.argument);
    if (__tsan_release) {
      __tsan_release(&machine.finished);
    }
    machine.warps[self.number / 32].returned |= 1u << self.lane;
    if (++machine.returned == machine.threads.size()) {
      switch_to(self.context, machine.host);
      arrive(self.context);
    } else {
      run_fiber(self.context, next_fiber(self.number / 32));
    }
  }
}

// ---- collectives

using Lanes = Fiber* const*;

// Waits for the other lanes of the mask; the last one does `complete` for all.
template <class Complete>
void meet(const char* name, uint32_t mask, void* arguments, const Site& site, const Complete& complete) {
  Fiber& self = *machine.running;
  const unsigned number = self.number / 32;
  Warp& warp = machine.warps[number];
  const Lanes lanes = &machine.threads[32 * number];
  if (!(mask >> self.lane & 1)) {
    fail(self, "%s (%s): the mask %08x lacks the caller, lane %u,", name, place(site).c_str(), mask, self.lane);
  }
  self.name = name;
  self.mask = mask;
  self.site = site;
  self.arguments = arguments;
  warp.waiting |= 1u << self.lane;
  if ((warp.waiting & mask) != mask) {
    return suspend();
  }
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const Fiber& other = *lanes[std::countr_zero(rest)];
    if (other.mask != mask || !same(other.name, name) || !same(other.site, site)) {
      fail(self, "divergence: %s (mask %08x, %s) meets thread %u, which %s,", name, mask, place(site).c_str(),
           other.number, state(other.number).c_str());
    }
  }
  complete(lanes);
  warp.waiting &= ~mask;
  make_ready(number, mask & ~(1u << self.lane));
}

struct Operands {
  float* d;
  const uint32_t *a, *b;
};

template <int kK, class Convert>
void multiply(Lanes lanes, const Convert& convert) {
  constexpr int kPerRegister = kK / 8;  // elements
  float a[16][kK], b[kK][8], d[16][8] = {};
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const Operands& operands = *static_cast<const Operands*>(lanes[lane]->arguments);
    for (int e = 0; e < kPerRegister; ++e) {
      const int k = kPerRegister * t + e;
      for (int r = 0; r < 4; ++r) {
        a[g + 8 * (r % 2)][k + kK / 2 * (r / 2)] = convert(operands.a[r], e);
      }
      for (int r = 0; r < 2; ++r) {
        b[k + kK / 2 * r][g] = convert(operands.b[r], e);
      }
    }
  }
  for (int k = 0; k < kK; ++k) {
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 8; ++j) {
        d[i][j] += a[i][k] * b[k][j];
      }
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const Operands& operands = *static_cast<const Operands*>(lanes[lane]->arguments);
    for (int r = 0; r < 4; ++r) {
      operands.d[r] += d[g + 8 * (r / 2)][2 * t + r % 2];
    }
  }
}

// ---- blocks

// NaN in the block's shared memory; on both sides a margin that nobody may touch.
constexpr unsigned char kMargin = 0xa5;

void prepare_shared() {
  unsigned char* const shared = machine.region + kSharedOffset;
  unsigned char* const end = shared + block.shared_bytes;
  const Unseen unseen;
  if (__tsan_create_fiber) {  // mapped anew: what the last block did there is forgotten
    mmap(machine.region, kSharedRegion, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  }
  if (__asan_unpoison_memory_region) {
    __asan_unpoison_memory_region(machine.region, kSharedRegion);
  }
  std::memset(shared - 128, kMargin, 128);
  std::memset(shared, 0xff, block.shared_bytes);
  std::memset(end, kMargin, 128);
  if (__asan_poison_memory_region) {
    __asan_poison_memory_region(machine.region, kSharedOffset);
    __asan_poison_memory_region(end, machine.region + kSharedRegion - end);
  }
  block.shared = shared;
}

void check_margins() {
  if (__asan_poison_memory_region) {
    return;  // it has seen more
  }
  const unsigned char *begin = block.shared, *end = begin + block.shared_bytes;
  for (int i = 0; i < 128; ++i) {
    if (begin[-1 - i] != kMargin || end[i] != kMargin) {
      fail(*machine.threads[0], "somebody wrote %s the %zu bytes of shared memory,",
           end[i] != kMargin ? "behind" : "before", block.shared_bytes);
    }
  }
}

void add_fiber(std::deque<Fiber>& pool) {
  Fiber& fiber = pool.emplace_back();
  // A page that cannot be touched lies below. Tops differ, so that they do not compete for the same lines of the cache.
  auto* memory = static_cast<unsigned char*>(
      mmap(nullptr, kPage + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (memory == MAP_FAILED) {
    std::perror("simt: error: no memory for a stack");
    std::abort();
  }
  mprotect(memory, kPage, PROT_NONE);
  const size_t number = pool.size() - 1;
  fiber.context.stack = memory + kPage;
  fiber.context.stack_bytes = kStack - number % 61 * 1088 / 64 * 64;
  if (__tsan_create_fiber) {
    fiber.context.tsan = __tsan_create_fiber(0);
  }
  fiber.context.registers.start(memory + kPage, fiber.context.stack_bytes, serve);
}

void run_block() {
  const unsigned threads = block.threads.x;
  std::deque<Fiber>& pool =
      machine.pools[__tsan_create_fiber ? (block.index.x + block.index.y + block.index.z) % 2 : 0];
  while (pool.size() < threads) {
    add_fiber(pool);
  }
  machine.threads.resize(threads);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = pool[i];
    fiber.index = {i, 0, 0};
    fiber.number = i;
    fiber.lane = i % 32;
    machine.threads[i] = &fiber;
  }
  machine.meetings = std::make_unique<BlockMeetings>();
  machine.returned = machine.arrived = 0;
  machine.ready_warps = 0;
  for (unsigned warp = 0; 32 * warp < threads; ++warp) {
    const unsigned lanes = min(threads - 32 * warp, 32u);
    machine.warps[warp].ready = machine.warps[warp].waiting = machine.warps[warp].returned = 0;
    make_ready(warp, lanes == 32 ? ~0u : (1u << lanes) - 1);
  }
  prepare_shared();
  run_fiber(machine.host, next_fiber(0));
  machine.running = nullptr;
  check_margins();
}

void on_death() {
  if (machine.running) {
    std::fputs("simt: error: a sanitizer stopped ", stderr);
    print_place(*machine.running);
  }
}

}  // namespace

// ---- what kernels call

void fail_access(const char* what, const void* p, size_t bytes, size_t alignment, const Site& site) {
  const char* fault = reinterpret_cast<uintptr_t>(p) % alignment ? "misaligned" : "out of bounds";
  const std::ptrdiff_t offset = static_cast<const unsigned char*>(p) - block.shared;
  if (offset >= -65536 && offset < std::ptrdiff_t(block.shared_bytes) + 65536) {
    fail(*machine.running, "%s: %s (%s): %zu bytes at byte %td of %zu in shared memory,", fault, what,
         place(site).c_str(), bytes, offset, block.shared_bytes);
  }
  fail(*machine.running, "%s: %s (%s): %zu bytes at %p, which is not in shared memory,", fault, what,
       place(site).c_str(), bytes, p);
}

void syncthreads(const Site& site) {
  Fiber& self = *machine.running;
  if (machine.arrived++ == 0) {
    machine.barrier = site;
  } else if (!same(machine.barrier, site)) {
    fail(self, "divergence: __syncthreads (%s) meets __syncthreads (%s),", place(site).c_str(),
         place(machine.barrier).c_str());
  }
  self.site = site;
  void* const meeting = machine.meetings->threads.current();
  if (__tsan_release) {
    __tsan_release(meeting);
  }
  if (machine.arrived == machine.threads.size()) {
    machine.arrived = 0;
    ++machine.meetings->threads.count;
    for (const Fiber* fiber : machine.threads) {
      if (fiber != &self) {
        make_ready(fiber->number / 32, 1u << fiber->lane);
      }
    }
  } else {
    suspend();
  }
  if (__tsan_acquire) {
    __tsan_acquire(meeting);
  }
}

void syncwarp(uint32_t mask, const Site& site) {
  Meetings* meetings = nullptr;
  void* meeting = nullptr;
  if (__tsan_release) {
    const Unseen unseen;
    meetings = &machine.meetings->warps[machine.running->number / 32][mask];
    meeting = meetings->current();
    __tsan_release(meeting);
  }
  meet("__syncwarp", mask, nullptr, site, [&](Lanes) {
    if (meetings) {
      ++meetings->count;
    }
  });
  if (__tsan_acquire) {
    __tsan_acquire(meeting);
  }
}

uint32_t ballot(uint32_t mask, bool predicate, const char* name, const Site& site) {
  struct Vote {
    bool predicate;
    uint32_t result;
  } vote{predicate, 0};
  meet(name, mask, &vote, site, [&](Lanes lanes) {
    uint32_t result = 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      result |= uint32_t(static_cast<Vote*>(lanes[lane]->arguments)->predicate) << lane;
    }
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      static_cast<Vote*>(lanes[std::countr_zero(rest)]->arguments)->result = result;
    }
  });
  return vote.result;
}

uint64_t shuffle(uint32_t mask, uint64_t value, unsigned source, const char* name, const Site& site) {
  struct Exchange {
    uint64_t value;
    unsigned source;
    uint64_t result;
  } exchange{value, source, value};
  meet(name, mask, &exchange, site, [&](Lanes lanes) {
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      const Fiber& fiber = *lanes[std::countr_zero(rest)];
      auto& mine = *static_cast<Exchange*>(fiber.arguments);
      if (mine.source >= 32) {
        continue;
      }
      if (!(mask >> mine.source & 1)) {
        fail(fiber, "%s (%s) reads lane %u, which the mask %08x lacks,", name, place(site).c_str(), mine.source, mask);
      }
      mine.result = static_cast<const Exchange*>(lanes[mine.source]->arguments)->value;
    }
  });
  return exchange.result;
}

void mma(Element element, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Site& site) {
  Operands operands{d, a, b};
  switch (element) {
    case Element::kBfloat16:
      return meet("mma of bfloat16", ~0u, &operands, site, [](Lanes lanes) {
        multiply<16>(lanes, [](uint32_t r, int e) { return bfloat16_to_float(uint16_t(r >> 16 * e)); });
      });
    case Element::kHalf:
      return meet("mma of half16", ~0u, &operands, site, [](Lanes lanes) {
        multiply<16>(lanes, [](uint32_t r, int e) { return half_to_float(uint16_t(r >> 16 * e)); });
      });
    case Element::kTf32:
      return meet("mma of tf32", ~0u, &operands, site, [](Lanes lanes) {
        multiply<8>(lanes, [](uint32_t r, int) { return bit_cast<float>(r & 0xffffe000); });
      });
  }
}

void exchange_matrices(uint32_t* r, int matrices, bool transposed, const uint32_t (&row)[4], const Site& site) {
  struct Exchange {
    const uint32_t* row;
    uint32_t* r;
  } exchange{row, r};
  const char* const name = matrices == 4 ? (transposed ? "ldmatrix_x4_trans" : "ldmatrix_x4")
                                         : (transposed ? "ldmatrix_x2_trans" : "ldmatrix_x2");
  meet(name, ~0u, &exchange, site, [&](Lanes lanes) {
    const auto row_of = [&](int lane) { return static_cast<const Exchange*>(lanes[lane]->arguments)->row; };
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      uint32_t* const to = static_cast<const Exchange*>(lanes[lane]->arguments)->r;
      for (int m = 0; m < matrices; ++m) {
        const auto element = [&](int i, int j) { return row_of(8 * m + i)[j / 2] >> 16 * (j % 2) & 0xffff; };
        to[m] = transposed ? element(2 * t, g) | element(2 * t + 1, g) << 16 : row_of(8 * m + g)[t];
      }
    }
  });
}

void add_copy(const Copy& copy) {
  machine.running->copies.push_back(copy);
  ++machine.running->open;
}

void cp_async_commit() {
  machine.running->groups.push_back(machine.running->open);
  machine.running->open = 0;
}

const Copy* next_landing(int pending) {
  Fiber& fiber = *machine.running;
  while (fiber.groups.size() > size_t(pending)) {
    if (fiber.groups.front()) {
      --fiber.groups.front();
      fiber.landing = fiber.copies.front();
      fiber.copies.pop_front();
      return &fiber.landing;
    }
    fiber.groups.pop_front();
  }
  return nullptr;
}

const char* run(const char* signature, dim3 grid, unsigned threads, size_t shared_bytes, void (*body)(const void*),
                const void* context) {
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535 || !threads ||
      threads > kMaxThreads) {
    return "invalid configuration argument";
  }
  if (shared_bytes > kMaxShared) {
    return "invalid argument";
  }
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  machine.signature = signature;
  machine.body = body;
  machine.argument = context;
  if (!machine.region) {
    machine.region = static_cast<unsigned char*>(
        mmap(nullptr, kSharedRegion, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (__sanitizer_set_death_callback) {
      __sanitizer_set_death_callback(on_death);
    }
  }
  const char* const seed = std::getenv("MMCUDA_SIMT_SEED");
  machine.random = seed ? std::strtoull(seed, nullptr, 10) * 0x9e3779b97f4a7c15u : 0;
  if (__tsan_get_current_fiber) {
    machine.host.tsan = __tsan_get_current_fiber();
    __tsan_release(&machine.launched);
  }
  block.grid = grid;
  block.threads = threads;
  block.shared_bytes = shared_bytes;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        block.index = {x, y, z};
        run_block();
      }
    }
  }
  if (__tsan_acquire) {
    __tsan_acquire(&machine.finished);
  }
  return nullptr;
}

}  // namespace mmcuda::simt
