#include "instruction_set.h"

#include <atomic>
#include <stdexcept>

namespace mmcuda {

extern const InstructionSet k_portable;
#ifdef MMCUDA_X86
extern const InstructionSet k_avx2;
extern const InstructionSet k_avx512;
extern const InstructionSet k_avx512bf16;
#endif

std::vector<const InstructionSet*> usable_instruction_sets() {
  std::vector<const InstructionSet*> usable;
#ifdef MMCUDA_X86
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  const bool fma = __builtin_cpu_supports("fma");
  if (avx512 && fma && __builtin_cpu_supports("avx512bf16")) usable.push_back(&k_avx512bf16);
  if (avx512 && fma) usable.push_back(&k_avx512);
  if (__builtin_cpu_supports("avx2") && fma) usable.push_back(&k_avx2);
#endif
  usable.push_back(&k_portable);
  return usable;
}

namespace {
std::atomic<const InstructionSet*>& chosen() {
  static std::atomic<const InstructionSet*> set{usable_instruction_sets().front()};
  return set;
}
}  // namespace

const InstructionSet& instruction_set() { return *chosen(); }

void set_instruction_set(const std::string& name) {
  for (const InstructionSet* set : usable_instruction_sets()) {
    if (name == set->name) {
      chosen() = set;
      return;
    }
  }
  throw std::invalid_argument("instruction set " + name + " is not compiled in or not supported by this processor");
}

}  // namespace mmcuda
