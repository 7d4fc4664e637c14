#include "tiles_launch.cuh"

template struct mmcuda::Tiles<mmcuda::Float32Math>;
template struct mmcuda::Tiles<mmcuda::FastFloat32Math>;
