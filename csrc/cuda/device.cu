// What the host functions ask the CUDA runtime.

#include <cuda_runtime.h>

namespace mmcuda {

int device_multiprocessors(int device) {
  int count = 0;
  return cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) == cudaSuccess ? count : 1;
}

}  // namespace mmcuda
