// Sums of 16 columns to outputs, for the three NEON kernels.
#pragma once

#include <arm_neon.h>

#include "panel16.h"

namespace {

struct NeonStore {
  const nas::GemmArgs& args;
  float32x4_t low, high;
  int32x4_t zero;

  explicit NeonStore(const nas::GemmArgs& all)
      : args(all),
        low(vdupq_n_f32(static_cast<float>(all.epilogue.low - all.epilogue.zero_point))),
        high(vdupq_n_f32(static_cast<float>(all.epilogue.high - all.epilogue.zero_point))),
        zero(vdupq_n_s32(all.epilogue.zero_point)) {}

  uint8x16_t bytes(const int32x4_t* sums, const PanelEpilogue& p) const {
    int16x4_t halves[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const float32x4_t value = vmulq_f32(vcvtq_f32_s32(sums[v]), vld1q_f32(p.scale + 4 * v));
      // Integers between the bounds after the rounding, so the narrowing never saturates.
      halves[v] = vmovn_s32(vaddq_s32(vcvtnq_s32_f32(vminq_f32(vmaxq_f32(value, low), high)), zero));
    }
    const int8x8_t left = vmovn_s16(vcombine_s16(halves[0], halves[1]));
    const int8x8_t right = vmovn_s16(vcombine_s16(halves[2], halves[3]));
    return vreinterpretq_u8_s8(vcombine_s8(left, right));
  }

  void words(const int32x4_t* sums, const PanelEpilogue& p, std::uint8_t* c) const {
    std::int32_t out[kPanel];
    for (int v = 0; v < 4; ++v) {
      if (args.epilogue.output == nas::GemmOutput::s32) {
        vst1q_s32(out + 4 * v, sums[v]);
      } else {
        float32x4_t value = vmulq_f32(vcvtq_f32_s32(sums[v]), vld1q_f32(p.scale + 4 * v));
        if (args.epilogue.shift != nullptr) value = vaddq_f32(value, vld1q_f32(p.shift + 4 * v));
        vst1q_s32(out + 4 * v, vreinterpretq_s32_f32(value));
      }
    }
    std::memcpy(c, out, static_cast<std::size_t>(p.columns) * 4);
  }

  void row(int32x4_t* sums, const PanelEpilogue& p, std::int64_t i, std::int64_t first) const {
    if (args.epilogue.row_term != nullptr) {
      const int32x4_t term = vdupq_n_s32(args.epilogue.row_term[i]);
      for (int v = 0; v < 4; ++v) sums[v] = vaddq_s32(sums[v], term);
    }
    const bool narrow = args.epilogue.output == nas::GemmOutput::u8 || args.epilogue.output == nas::GemmOutput::s8;
    std::uint8_t* c = static_cast<std::uint8_t*>(args.c) + (i * args.ldc + first) * (narrow ? 1 : 4);
    if (!narrow) {
      words(sums, p, c);
    } else if (p.columns == kPanel) {
      vst1q_u8(c, bytes(sums, p));
    } else {
      std::uint8_t out[kPanel];
      vst1q_u8(out, bytes(sums, p));
      std::memcpy(c, out, static_cast<std::size_t>(p.columns));
    }
  }
};

}  // namespace
