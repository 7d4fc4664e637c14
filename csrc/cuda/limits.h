// What of a device decides how work is cut.

#pragma once

namespace mmcuda {

struct DeviceLimits {
  int multiprocessors;
  int shared_memory;  // of a multiprocessor, bytes
};

DeviceLimits device_limits(int device);  // device.cu

}  // namespace mmcuda
