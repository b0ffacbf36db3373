// Operators on bytes with NEON, 16 at a time; what is left, and what is rare, runs as written in body.h.
#include "../requantize/neon.h"
#include "body.h"

namespace nas {
namespace {

struct Quantizer {
  float32x4_t scale, low;
  int16x8_t zero;
  Quantizer(float scale_, std::int32_t zero_)
      : scale(vdupq_n_f32(scale_)), low(vdupq_n_f32(float(-zero_))), zero(vdupq_n_s16(std::int16_t(zero_))) {}
  // The maximum of NaN and a number is the number; all else saturates as it is converted and narrowed.
  int32x4_t four(const float* in) const { return vcvtnq_s32_f32(vmaxnmq_f32(vdivq_f32(vld1q_f32(in), scale), low)); }
  uint8x16_t sixteen(const float* in) const { return narrowed(four(in), four(in + 4), four(in + 8), four(in + 12), zero); }
};

void quantize_vectors(const float* in, std::uint8_t* out, std::size_t n, float scale, std::int32_t zero) {
  const Quantizer q(scale, zero);
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) vst1q_u8(out + i, q.sixteen(in + i));
  quantize_all(in + i, out + i, n - i, scale, zero);
}

void planes_vectors(const float* in, std::uint8_t* out, std::size_t pixels, std::size_t channels, std::size_t plane,
                    float scale, std::int32_t zero) {
  if (channels != 3) {
    quantize_planes(in, out, pixels, channels, plane, scale, zero);
    return;
  }
  const Quantizer q(scale, zero);
  std::size_t p = 0;
  for (; p + 16 <= pixels; p += 16) {
    vst3q_u8(out + 3 * p, {{q.sixteen(in + p), q.sixteen(in + plane + p), q.sixteen(in + 2 * plane + p)}});
  }
  for (; p < pixels; ++p) {
    for (std::size_t c = 0; c < 3; ++c) out[3 * p + c] = quantize(in[c * plane + p], scale, zero);
  }
}

void table_vectors(const std::uint8_t* in, std::uint8_t* out, std::size_t n, const std::uint8_t* entries) {
  uint8x16x4_t part[4];
  for (int i = 0; i < 4; ++i) part[i] = vld1q_u8_x4(entries + 64 * i);
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    uint8x16_t index = vld1q_u8(in + i);
    uint8x16_t found = vqtbl4q_u8(part[0], index);  // 0 where the index is too large
#pragma GCC unroll 3
    for (int j = 1; j < 4; ++j) {
      index = vsubq_u8(index, vdupq_n_u8(64));
      found = vqtbx4q_u8(found, part[j], index);
    }
    vst1q_u8(out + i, found);
  }
  table(in + i, out + i, n - i, entries);
}

struct Sixteen {
  float32x4_t at[4];
};

inline Sixteen floats_of(const std::uint8_t* from) {
  const uint8x16_t bytes = vld1q_u8(from);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
  return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_high_u16(low)),
           vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_high_u16(high))}};
}

void add_vectors(const std::uint8_t* a, const std::uint8_t* b, std::uint8_t* out, std::size_t n, const AddParams& p) {
  const float32x4_t ratio_a = vdupq_n_f32(p.ratio_a), ratio_b = vdupq_n_f32(p.ratio_b), fixed = vdupq_n_f32(p.fixed);
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const Sixteen x = floats_of(a + i), y = floats_of(b + i);
    int32x4_t sums[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums[v] = vcvtnq_s32_f32(vfmaq_f32(vfmaq_f32(fixed, y.at[v], ratio_b), x.at[v], ratio_a));
    vst1q_u8(out + i, narrowed(sums[0], sums[1], sums[2], sums[3], vdupq_n_s16(0)));
  }
  add(a + i, b + i, out + i, n - i, p);
}

void mean_vectors(const std::uint8_t* in, std::uint8_t* out, std::size_t pixels, std::size_t channels, std::int32_t* sums,
                  float multiplier, std::int32_t zero_in, std::int32_t zero_out) {
  if (channels < 16) {
    mean(in, out, pixels, channels, sums, multiplier, zero_in, zero_out);
    return;
  }
  const std::int32_t offset = std::int32_t(pixels) * zero_in;
  const float32x4_t factor = vdupq_n_f32(multiplier);
  for (std::size_t done = 0; done < channels; done += 16) {
    // The last block starts early instead of being smaller: what it writes twice is the same.
    const std::size_t c = done + 16 <= channels ? done : channels - 16;
    int32x4_t total[4];
    for (int v = 0; v < 4; ++v) total[v] = vdupq_n_s32(-offset);
    const std::uint8_t* at = in + c;
    for (std::size_t pixel = 0; pixel < pixels;) {
      // 256 bytes fit into 16 bits.
      const std::size_t end = pixels - pixel < 256 ? pixels : pixel + 256;
      uint16x8_t low = vdupq_n_u16(0), high = low;
      for (; pixel < end; ++pixel, at += channels) {
        const uint8x16_t bytes = vld1q_u8(at);
        low = vaddw_u8(low, vget_low_u8(bytes));
        high = vaddw_high_u8(high, bytes);
      }
      total[0] = vreinterpretq_s32_u32(vaddw_u16(vreinterpretq_u32_s32(total[0]), vget_low_u16(low)));
      total[1] = vreinterpretq_s32_u32(vaddw_high_u16(vreinterpretq_u32_s32(total[1]), low));
      total[2] = vreinterpretq_s32_u32(vaddw_u16(vreinterpretq_u32_s32(total[2]), vget_low_u16(high)));
      total[3] = vreinterpretq_s32_u32(vaddw_high_u16(vreinterpretq_u32_s32(total[3]), high));
    }
    for (int v = 0; v < 4; ++v) total[v] = rescaled(total[v], factor);
    vst1q_u8(out + c, narrowed(total[0], total[1], total[2], total[3], vdupq_n_s16(std::int16_t(zero_out))));
  }
}

}  // namespace

const ByteKernels byte_kernels_neon = {"neon",  quantize_vectors, planes_vectors, dequantize,  table_vectors,
                                       lookup, add_vectors,      multiply,       mean_vectors};

}  // namespace nas
