// conv_u8s8 with usdot, which the int8 matrix extension brings: unsigned bytes times signed ones, nothing to shift.
#include "neon_tiles.h"

namespace nas {
namespace {

struct MixedDot {
  using Bytes = uint8x16_t;
  static constexpr int kShift = 0;
  static Bytes load(const std::uint8_t* from) { return vld1q_u8(from); }
  template <int LANE>
  static int32x4_t dot(int32x4_t sum, int8x16_t w, Bytes x) {
    return vsudotq_laneq_s32(sum, w, x, LANE);
  }
};

}  // namespace

ConvU8* conv_u8_neoni8mm(const ConvU8Params& params) {
  if (params.shape.groups != 1 || !sums_fit(params)) return nullptr;
  return new TiledConv<MixedDot>(params, params.float_out ? "conv_u8s8f32_3x32_neoni8mm" : "conv_u8s8u8_3x32_neoni8mm");
}

}  // namespace nas
