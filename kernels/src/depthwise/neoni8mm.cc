// Depthwise convolution with usdot, which needs no shifted activations.
#include "neon_taps.h"

namespace nas {
namespace {

struct MixedDot {
  static constexpr int kFlip = 0;
  static int32x4_t dot(int32x4_t sum, int8x16_t x, int8x16_t w) { return vusdotq_s32(sum, vreinterpretq_u8_s8(x), w); }
};

}  // namespace

ConvU8* depthwise_u8_neoni8mm(const ConvU8Params& params) {
  if (!params.shape.depthwise() || params.float_out || !sums_fit(params)) return nullptr;
  return new DepthwiseTaps<MixedDot>(params, "depthwise_u8s8u8_3x16_neoni8mm");
}

}  // namespace nas
