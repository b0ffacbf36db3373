// Four products per lane and instruction: weights of 0 to 15 are signed bytes too. Also what processors with i8mm run, whose
// products of 2 x 8 by 8 x 2 would need weights in another order.
#include "neon_lanes.h"

namespace nas {
namespace {

struct NeonDot : NeonLanes {
  struct Partial {
    int32x4_t sums;
  };
  static constexpr std::int64_t kBlock = 1 << 20;
  static constexpr int vectors(int) { return 8; }

  static void add(Partial& partial, const Nibbles& w, const std::int8_t* eight) {
    const int8x8_t values = vld1_s8(eight);
    partial.sums = vdotq_lane_s32(vdotq_lane_s32(partial.sums, w.low, values, 0), w.high, values, 1);
  }
  static void fold(Partial&) {}
  static Sums total(const Partial& partial) { return reinterpret_cast<Sums>(partial.sums); }
};

}  // namespace

extern const Int4Kernel int4_neondot;
const Int4Kernel int4_neondot = {Level::neondot, "int4_f32_2x32x8_neondot", int4_run<NeonDot>};

}  // namespace nas
