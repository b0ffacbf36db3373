// The reference, and what a processor without any known extension runs: gcc's generic vectors at the baseline ISA.
#include <cstdint>

#include "dot_tail.h"
#include "nas/peaks.h"
#include "opaque.h"

namespace nas {
namespace {

using F32x4 = float __attribute__((vector_size(16)));

double fma_burst(std::int64_t iterations) {
  F32x4 x = {1.0F, 1.0F, 1.0F, 1.0F};
  const F32x4 y = x;
  F32x4 sums[8] = {};
#pragma GCC unroll 8
  for (F32x4& sum : sums) sum = opaque(sum);
  for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 8
    for (F32x4& sum : sums) {
      x = opaque(x);
      sum += x * y;
    }
  }
  double total = 0.0;
  for (const F32x4& sum : sums) {
    for (int lane = 0; lane < 4; ++lane) total += static_cast<double>(sum[lane]);
  }
  return total;
}

constexpr std::int64_t kBlock = 1024;

std::int32_t dot(const std::uint8_t* a, const std::int8_t* b, std::size_t n) { return dot_tail(a, b, 0, n); }

// From the first-level cache: a loop without vector instructions of its own has no accumulators to keep in registers.
std::uint32_t dot_burst(std::int64_t iterations) {
  std::uint8_t a[kBlock];
  std::int8_t b[kBlock];
  for (std::int64_t i = 0; i < kBlock; ++i) {
    a[i] = kBurstU8;
    b[i] = kBurstS8;
  }
  std::uint32_t sum = 0;
  for (std::int64_t i = 0; i < iterations; ++i) {
    __asm__ volatile("" : : "r"(a), "r"(b) : "memory");
    sum += static_cast<std::uint32_t>(dot(a, b, kBlock));
  }
  return sum;
}

}  // namespace

const Fp32Kernel fma_f32_8x4_portable = {"portable", 8 * 4, fma_burst};
const Int8Kernel dot_u8s8s32_portable = {"portable", kBlock, dot_burst, dot};

}  // namespace nas
