// Label values to intervals of their order on device memory, without torch.

#pragma once

#include <cstdint>

namespace mmcuda {

// sorted [samples] values, sample_of [samples] whose they are -> intervals [3, samples * views]: order, first, last.
// For int64 (-1 = missing, tolerance 0) and double (not finite = missing). Returns null or the text of an error.
template <class V>
const char* label_intervals(const V* sorted, const int64_t* sample_of, int64_t samples, int64_t views, V tolerance,
                            int32_t* intervals, void* stream);

}  // namespace mmcuda
