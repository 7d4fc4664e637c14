// What the host asks the CUDA runtime: what of a device decides how work is cut, and versions.

#pragma once

namespace mmcuda {

inline constexpr int kSharedOfSystem = 1024;  // bytes of shared memory that the system takes with each block

struct DeviceLimits {
  int multiprocessors;
  int shared_memory;  // of a multiprocessor, bytes
};

// device.cu
DeviceLimits device_limits(int device);
int cuda_runtime_version();  // that the kernels are linked with: 13000 is 13.0
int cuda_driver_version();   // the newest runtime that the driver serves; 0: no driver

}  // namespace mmcuda
