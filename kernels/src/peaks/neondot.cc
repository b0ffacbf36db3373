#include <arm_neon.h>

#include "dot_tail.h"
#include "nas/peaks.h"
#include "opaque.h"

namespace nas {
namespace {

std::uint32_t dot_burst(std::int64_t iterations) {
  const int8x16_t a = vdupq_n_s8(kBurstU8);
  const int8x16_t b = vdupq_n_s8(kBurstS8);
  int32x4_t sums[12] = {};
#pragma GCC unroll 12
  for (int32x4_t& sum : sums) sum = opaque(sum);
  for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (int32x4_t& sum : sums) sum = vdotq_s32(sum, a, b);
  }
  std::uint32_t total = 0;
  for (const int32x4_t& sum : sums) total += static_cast<std::uint32_t>(vaddvq_s32(sum));
  return total;
}

// u8 = s8 + 128 after flipping the top bit, so a.b = (a - 128).b + 128 * sum(b).
std::int32_t dot(const std::uint8_t* a, const std::int8_t* b, std::size_t n) {
  int32x4_t sum = vdupq_n_s32(0);
  int32x4_t sum_b = vdupq_n_s32(0);
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const int8x16_t x = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(a + i), vdupq_n_u8(0x80)));
    const int8x16_t y = vld1q_s8(b + i);
    sum = vdotq_s32(sum, x, y);
    sum_b = vdotq_s32(sum_b, vdupq_n_s8(1), y);
  }
  return vaddvq_s32(sum) + 128 * vaddvq_s32(sum_b) + dot_tail(a, b, i, n);
}

}  // namespace

const Int8Kernel dot_u8s8s32_12x16_neondot = {"neondot", 12 * 16, dot_burst, dot};

}  // namespace nas
