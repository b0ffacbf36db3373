// conv_u8s8 with NEON's sdot, which takes signed bytes on both sides: activations are shifted by 128 as they are loaded, and
// the bias gives that back.
#include "neon_tiles.h"

namespace nas {
namespace {

struct Dot {
  using Bytes = int8x16_t;
  static constexpr int kShift = 128;
  static Bytes load(const std::uint8_t* from) { return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(from), vdupq_n_u8(0x80))); }
  template <int LANE>
  static int32x4_t dot(int32x4_t sum, int8x16_t w, Bytes x) {
    return vdotq_laneq_s32(sum, w, x, LANE);
  }
};

}  // namespace

ConvU8* conv_u8_neondot(const ConvU8Params& params) {
  if (params.shape.groups != 1 || !sums_fit(params)) return nullptr;
  return new TiledConv<Dot>(params, params.float_out ? "conv_u8s8f32_3x32_neondot" : "conv_u8s8u8_3x32_neondot");
}

}  // namespace nas
