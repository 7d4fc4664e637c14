// Runs the kernels of selftest.cuh under simt and compares with double precision. No torch, no GPU.
// With the patches of python_tests/planted/selftest it must fail; python_tests/test_simt_selftest.py builds them.

#include "selftest.cuh"

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace mmcuda::selftest {
namespace {

int failures = 0;

void expect(bool right, const char* what, int i, double got, double want) {
  if (!right && ++failures <= 5) {
    std::printf("selftest: %s [%d] is %.9g, wanted %.9g\n", what, i, got, want);
  }
}
void expect_near(const char* what, int i, double got, double want, double tolerance) {
  expect(std::abs(got - want) <= tolerance * (1 + std::abs(want)), what, i, got, want);
}
void expect_no_error(const char* error) {
  if (error) {
    ++failures;
    std::printf("selftest: launch failed: %s\n", error);
  }
}

template <class E>
void test_gram(const char* name, int n, int d) {
  using T = typename Stored<E>::type;
  std::vector<T> x(size_t(n) * d);
  std::vector<double> value(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const float uniform = float((i * 2654435761u >> 8 & 0xffff) / 65536. - 0.5);
    if constexpr (std::is_same_v<E, tf32>) {
      x[i] = uniform;
      value[i] = __uint_as_float(to_tf32(uniform));
    } else {
      x[i] = from_float<E>(uniform);
      value[i] = to_float(x[i]);
    }
  }
  const int tiles = (n + kTile - 1) / kTile;
  const float scale = 0.3f;
  std::vector<float> s(size_t(n) * n, NAN), partial(size_t(tiles) * n, NAN), sums(n, NAN);
  int finished[2] = {};
  const Gram<E> gram{x.data(), n, d, scale, s.data(), partial.data(), finished};
  const size_t shared_bytes = kStages * kStageBytes;
  expect_no_error(launch<gram_kernel<E>>(dim3(tiles, tiles), kThreads, shared_bytes, nullptr, gram));
  expect_no_error(launch<finish_kernel>((n + 3) / 4, kThreads, kThreads * sizeof(float), nullptr, partial.data(),
                                        sums.data(), n, tiles));
  expect_near("blocks", 0, finished[0], tiles * (tiles + 1) / 2, 0);
  for (int i = 0; i < n; ++i) {
    double sum = 0;
    for (int j = 0; j < n; ++j) {
      double product = 0;
      for (int k = 0; k < d; ++k) {
        product += value[size_t(i) * d + k] * value[size_t(j) * d + k];
      }
      expect_near(name, i * n + j, s[size_t(i) * n + j], product, 1e-5);
      sum += std::exp2(double(scale) * product);
    }
    expect_near(name, i, sums[i], sum, 1e-5);
  }
}

void test_collectives() {
  std::vector<uint16_t> elements(256 + 8);
  uint16_t* const aligned = elements.data() + (16 - reinterpret_cast<uintptr_t>(elements.data()) % 16) % 16 / 2;
  std::vector<float4> x(32);
  for (int i = 0; i < 256; ++i) {
    aligned[i] = uint16_t(i);
  }
  for (int lane = 0; lane < 32; ++lane) {
    x[lane] = {float(lane), lane + 0.25f, lane + 0.5f, lane + 0.75f};
  }
  std::vector<Collected> out(32);
  double total = 0;
  expect_no_error(launch<collect_kernel>(1, 32, kCollectShared, nullptr, aligned, &x[0].x, out.data(), &total));
  expect_near("atomicAdd", 0, total, 31 * 16, 0);
  for (int lane = 0; lane < 32; ++lane) {
    const Collected& c = out[lane];
    const int g = lane / 4, t = lane % 4;
    for (int m = 0; m < 4; ++m) {
      const uint32_t plain = (64 * m + 8 * g + 2 * t) | (64 * m + 8 * g + 2 * t + 1) << 16;
      const uint32_t transposed = (64 * m + 16 * t + g) | (64 * m + 16 * t + 8 + g) << 16;
      expect_near("ldmatrix_x4", lane, c.matrices[0][m], plain, 0);
      expect_near("ldmatrix_x4_trans", lane, c.matrices[1][m], transposed, 0);
      expect_near("ldmatrix_x2", lane, c.matrices[2][m], m < 2 ? plain : 0, 0);
      expect_near("ldmatrix_x2_trans", lane, c.matrices[3][m], m < 2 ? transposed : 0, 0);
    }
    expect_near("__shfl_xor_sync", lane, c.shuffled[0], lane ^ 5, 0);
    expect_near("__shfl_down_sync", lane, c.shuffled[1], lane + 3 < 32 ? lane + 3 : lane, 0);
    expect_near("__shfl_up_sync", lane, c.shuffled[2], lane < 2 ? lane : lane - 2, 0);
    expect_near("__shfl_sync", lane, c.shuffled[3], 7, 0);
    expect_near("__ballot_sync", lane, c.ballot, 0x49249249, 0);
    expect_near("__any_sync", lane, c.any, 1, 0);
    expect_near("__all_sync", lane, c.all, 1, 0);
    expect_near("half a warp", lane, c.halves, lane < 16 ? 120 : 376, 0);
    expect_near("cp_async_4", lane, c.copied.x, lane, 0);
    expect_near("cp_async_4", lane, c.copied.y, lane + 0.25, 0);
    expect_near("cp_async_8", lane, c.copied.z, lane % 2 ? 0 : lane + 0.5, 0);
    expect_near("cp_async_8", lane, c.copied.w, lane % 2 ? 0 : lane + 0.75, 0);
    const double near_one = double(1 + float(lane) / 1000);
    expect_near("bfloat16", lane, c.rounded[0], std::nearbyint(near_one * 128) / 128, 0);
    expect_near("half16", lane, c.rounded[1], std::nearbyint(near_one * 1024) / 1024, 0);
    expect_near("tf32", lane, c.rounded[2], std::nearbyint(near_one * 1024) / 1024, 0);
    for (int half = 0; half < 2; ++half) {
      const uint16_t low = uint16_t(c.packed[half]), high = uint16_t(c.packed[half] >> 16);
      expect_near("pack, low", lane, half ? to_float(half16{low}) : to_float(bfloat16{low}), lane, 0);
      expect_near("pack, high", lane, half ? to_float(half16{high}) : to_float(bfloat16{high}), -lane, 0);
    }
    expect_near("exp2_approx", lane, c.exponential, std::exp2(near_one), 1e-6);
    expect_near("log2_approx", lane, c.logarithm, std::log2(near_one), 1e-6);
  }
}

// Every value of 16 bits comes back from float, and what lies between two goes to the nearer one, or the even one.
void test_conversions() {
  for (int bits = 0; bits < 0xffff; ++bits) {
    const half16 x{uint16_t(bits)}, next{uint16_t(bits + 1)};
    const float f = to_float(x), above = to_float(next);
    if (f == f) {
      expect_near("half16", bits, from_float<half16>(f).bits, bits, 0);
    }
    if (std::isfinite(f) && std::isfinite(above)) {
      expect_near("half16, middle", bits, from_float<half16>((f + above) / 2).bits, bits + bits % 2, 0);
    }
    const bfloat16 y{uint16_t(bits)};
    if (to_float(y) == to_float(y)) {
      expect_near("bfloat16", bits, from_float<bfloat16>(to_float(y)).bits, bits, 0);
    }
  }
  expect_near("half16 of the smallest subnormal", 0, to_float(half16{1}), 0x1p-24, 0);
  expect_near("half16 of 65519", 0, from_float<half16>(65519.f).bits, 0x7bff, 0);
  expect_near("half16 of 65520", 0, from_float<half16>(65520.f).bits, 0x7c00, 0);
}

void test_launch() {
  const auto refused = [](dim3 grid, unsigned threads, size_t shared_bytes) {
    return launch<finish_kernel>(grid, threads, shared_bytes, nullptr, nullptr, nullptr, 0, 0) != nullptr;
  };
  expect(refused(0, 128, 0) && refused(1, 0, 0) && refused(1, 1025, 0) && refused(dim3(1, 65536), 128, 0) &&
             refused(1, 128, 228 * 1024),
         "launch", 0, 0, 1);
}

}  // namespace
}  // namespace mmcuda::selftest

int main() {
  using namespace mmcuda;
  using namespace mmcuda::selftest;
  for (const auto& [n, d] : {std::pair{1, 8}, {64, 64}, {70, 72}, {200, 136}, {129, 256}}) {
    test_gram<bfloat16>("bfloat16", n, d);
    test_gram<half16>("half16", n, d);
    test_gram<tf32>("tf32", n, d);
  }
  test_collectives();
  test_conversions();
  test_launch();
  std::printf(failures ? "selftest: %d failures\n" : "selftest: passed\n", failures);
  return failures != 0;
}
