// conv_u8s8 with plain NEON: exact products of 16 bits, one activation against 16 outputs at a time.
#include <arm_neon.h>

#include "../requantize/neon.h"
#include "body.h"

namespace nas {
namespace {

struct Neon {
  using Element = std::int16_t;
  using Weight = std::int16_t;
  using Sum = int32x4_t;
  static constexpr int kGroup = 1, kLanes = 4, kRows = 5, kVectors = 4, kShift = 0;

  static Sum load(const std::int32_t* from) { return vld1q_s32(from); }

  template <int NV>
  static void mac(Sum* sums, const Element* group, const Weight* weights) {
    const int16x8_t low = vld1q_s16(weights), high = vld1q_s16(weights + 8);
    const int16x8_t pixel = vld1q_dup_s16(group);
    sums[0] = vmlal_s16(sums[0], vget_low_s16(low), vget_low_s16(pixel));
    sums[1] = vmlal_high_s16(sums[1], low, pixel);
    sums[2] = vmlal_s16(sums[2], vget_low_s16(high), vget_low_s16(pixel));
    sums[3] = vmlal_high_s16(sums[3], high, pixel);
  }

  static void store(std::uint8_t* out, const Sum* sums, const float* multiplier, int zero) {
    int32x4_t scaled[4];
    for (int v = 0; v < 4; ++v) scaled[v] = rescaled(sums[v], vld1q_f32(multiplier + 4 * v));
    vst1q_u8(out, narrowed(scaled[0], scaled[1], scaled[2], scaled[3], vdupq_n_s16(std::int16_t(zero))));
  }

  static void store(float* out, const Sum* sums, const float* multiplier) {
    for (int v = 0; v < 4; ++v) vst1q_f32(out + 4 * v, vmulq_f32(vcvtq_f32_s32(sums[v]), vld1q_f32(multiplier + 4 * v)));
  }
};

}  // namespace

ConvU8* conv_u8_neon(const ConvU8Params& params) {
  if (params.shape.groups != 1 || !sums_fit(params)) return nullptr;
  return new BodyConv<Neon>(params, params.float_out ? "conv_u8s8f32_5x16_neon" : "conv_u8s8u8_5x16_neon");
}

}  // namespace nas
