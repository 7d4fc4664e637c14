#include "tiles_launch.cuh"

template struct mmcuda::Tiles<mmcuda::DoubleMath>;
