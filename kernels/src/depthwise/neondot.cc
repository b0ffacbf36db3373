// Depthwise convolution with sdot; activations are shifted by 128 when the frame is filled.
#include "neon_taps.h"

namespace nas {
namespace {

struct Dot {
  static constexpr int kFlip = 128;
  static int32x4_t dot(int32x4_t sum, int8x16_t x, int8x16_t w) { return vdotq_s32(sum, x, w); }
};

}  // namespace

ConvU8* depthwise_u8_neondot(const ConvU8Params& params) {
  if (!params.shape.depthwise() || params.float_out || !sums_fit(params)) return nullptr;
  return new DepthwiseTaps<Dot>(params, "depthwise_u8s8u8_3x16_neondot");
}

}  // namespace nas
