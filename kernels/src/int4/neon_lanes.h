// What the NEON kernels share.
#pragma once

#include "body.h"

namespace nas {
namespace {

struct NeonLanes {
  using Sums = std::int32_t __attribute__((vector_size(16)));
  using Reals = float __attribute__((vector_size(16)));
  struct Nibbles {
    int8x16_t low, high;
  };
  static constexpr std::int64_t kLanes = 4;

  static Nibbles nibbles(const std::uint8_t* bytes) {
    const uint8x16_t both = vld1q_u8(bytes);
    return {vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8(both, 4))};
  }
  static Reals fused(Reals a, Reals b, Reals c) {
    return reinterpret_cast<Reals>(
        vfmaq_f32(reinterpret_cast<float32x4_t>(c), reinterpret_cast<float32x4_t>(a), reinterpret_cast<float32x4_t>(b)));
  }
};

}  // namespace
}  // namespace nas
