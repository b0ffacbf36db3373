// The one rounding rule with NEON: converting saturates to 32 bits, narrowing to 16 and to 8, so nothing is clamped by hand.
// Internal linkage: included by files for one ISA each.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace nas {
namespace {

// Four sums in the scale of the output, rounded to nearest even; still without its zero point.
inline int32x4_t rescaled(int32x4_t sums, float32x4_t multiplier) {
  return vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sums), multiplier));
}

// 16 of those as bytes.
inline uint8x16_t narrowed(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d, int16x8_t zero) {
  const int16x8_t low = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(a), b), zero);
  const int16x8_t high = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(c), d), zero);
  return vqmovun_high_s16(vqmovun_s16(low), high);
}

}  // namespace
}  // namespace nas
