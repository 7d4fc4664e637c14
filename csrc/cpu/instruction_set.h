// Which of the compiled instruction sets the CPU kernels use.

#pragma once

#include <string>
#include <vector>

#include "../contrastive.h"

namespace mmcuda {

// The fastest first; only those this processor runs.
std::vector<const InstructionSet*> usable_instruction_sets();
const InstructionSet& instruction_set();
void set_instruction_set(const std::string& name);  // for tests; throws std::invalid_argument

}  // namespace mmcuda
