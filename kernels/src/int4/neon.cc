// Products of bytes in 16 bits, which hold the sum of 16 of them: weights have 4 bits.
#include "neon_lanes.h"

namespace nas {
namespace {

struct Neon : NeonLanes {
  // Two lanes of 16 bits for each byte of a column.
  struct Partial {
    int16x8_t left, right;
    int32x4_t sums;
  };
  static constexpr std::int64_t kBlock = 64;
  static constexpr int vectors(int) { return 4; }

  static void add(Partial& partial, const Nibbles& w, const std::int8_t* eight) {
    const int8x16_t first = vreinterpretq_s8_s32(vdupq_n_s32(four_bytes(eight)));
    const int8x16_t last = vreinterpretq_s8_s32(vdupq_n_s32(four_bytes(eight + 4)));
    partial.left = vmlal_s8(partial.left, vget_low_s8(w.low), vget_low_s8(first));
    partial.right = vmlal_high_s8(partial.right, w.low, first);
    partial.left = vmlal_s8(partial.left, vget_low_s8(w.high), vget_low_s8(last));
    partial.right = vmlal_high_s8(partial.right, w.high, last);
  }
  static void fold(Partial& partial) {
    partial.sums = vaddq_s32(partial.sums, vpaddq_s32(vpaddlq_s16(partial.left), vpaddlq_s16(partial.right)));
    partial.left = partial.right = vdupq_n_s16(0);
  }
  static Sums total(const Partial& partial) { return reinterpret_cast<Sums>(partial.sums); }
};

}  // namespace

extern const Int4Kernel int4_neon;
const Int4Kernel int4_neon = {Level::neon, "int4_f32_2x16x8_neon", int4_run<Neon>};

}  // namespace nas
