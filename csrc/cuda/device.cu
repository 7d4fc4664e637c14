// What the host functions ask the CUDA runtime.

#include <cuda_runtime.h>

#include "limits.h"

namespace mmcuda {

DeviceLimits device_limits(int device) {
  const auto ask = [&](cudaDeviceAttr what, int otherwise) {
    int value = 0;
    return cudaDeviceGetAttribute(&value, what, device) == cudaSuccess ? value : otherwise;
  };
  return {ask(cudaDevAttrMultiProcessorCount, 1), ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor, 100 * 1024)};
}

int cuda_runtime_version() { return CUDART_VERSION; }

int cuda_driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace mmcuda
