// Label values to rank intervals on device memory, without torch.

#pragma once

#include <cstdint>

namespace mmcuda {

// sorted [samples] values, order [samples] whose they are -> ranks [3, samples * views]: rank, first, last. For int64
// (-1 = missing, tolerance 0) and double (not finite = missing). Returns null or the text of an error.
template <class V>
const char* label_intervals(const V* sorted, const int64_t* order, int64_t samples, int64_t views, V tolerance,
                            int32_t* ranks, void* stream);

}  // namespace mmcuda
