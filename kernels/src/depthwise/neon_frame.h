// What NEON's depthwise convolutions share: the map with its padding in a frame of whole blocks of 16 channels, and the end
// of a pixel. Internal linkage: included by files for one ISA each.
#pragma once

#include <cstring>

#include "../conv/conv.h"
#include "../conv/packed.h"
#include "../requantize/neon.h"

namespace nas {
namespace {

constexpr int kBlock = 16;

struct Frame {
  ConvShape s;
  std::uint8_t flip;  // xored into every byte, padding included
  int zero_in, blocks, width, height;
  std::ptrdiff_t pixel, pitch;  // bytes of a pixel and of a row

  Frame(const ConvU8Params& params, std::uint8_t flipped)
      : s(params.shape), flip(flipped), zero_in(params.zero_in), blocks((s.channels + kBlock - 1) / kBlock),
        width(s.width + s.pad_left + s.pad_right), height(s.height + s.pad_top + s.pad_bottom), pixel(blocks * kBlock),
        pitch(width * pixel) {}

  std::size_t bytes() const { return std::size_t(pitch) * height + 64; }

  // `part`: the shape, or that of some of its images or lines.
  void fill(const ConvShape& part, const std::uint8_t* input, std::uint8_t* to) const {
    const int padding = zero_in ^ flip;
    const std::size_t left = s.pad_left * pixel, right = s.pad_right * pixel;
    std::memset(to, padding, part.pad_top * pitch + left);
    to += part.pad_top * pitch + left;
    for (int y = 0; y < part.height; ++y) {
      if (pixel == s.channels && s.in_pixel == s.channels) {
        to = copy(input, to, s.width * pixel);
        input += s.width * pixel;
      } else {
        for (int x = 0; x < s.width; ++x, input += s.in_pixel) {
          for (int c = 0; c < s.channels; ++c) to[c] = input[c] ^ flip;
          std::memset(to + s.channels, padding, pixel - s.channels);
          to += pixel;
        }
      }
      const std::size_t gap = y + 1 < part.height ? right + left : right;
      std::memset(to, padding, gap);
      to += gap;
    }
    std::memset(to, padding, part.pad_bottom * pitch);
  }

 private:
  // Whole blocks; four at a time.
  std::uint8_t* copy(const std::uint8_t* from, std::uint8_t* to, std::ptrdiff_t count) const {
    if (flip == 0) {
      std::memcpy(to, from, count);
      return to + count;
    }
    const uint8x16_t mask = vdupq_n_u8(flip);
    std::ptrdiff_t i = 0;
    for (; i + 64 <= count; i += 64) {
#pragma GCC unroll 4
      for (int v = 0; v < 64; v += 16) vst1q_u8(to + i + v, veorq_u8(vld1q_u8(from + i + v), mask));
    }
    for (; i < count; i += 16) vst1q_u8(to + i, veorq_u8(vld1q_u8(from + i), mask));
    return to + count;
  }
};

// Four sums of a block each, as bytes; `channels` of them exist.
inline void store_block(std::uint8_t* out, const int32x4_t (&sums)[4], const float* multiplier, int16x8_t zero, int channels) {
  int32x4_t scaled[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) scaled[v] = rescaled(sums[v], vld1q_f32(multiplier + 4 * v));
  const uint8x16_t bytes = narrowed(scaled[0], scaled[1], scaled[2], scaled[3], zero);
  if (channels >= kBlock) {
    vst1q_u8(out, bytes);
    return;
  }
  std::uint8_t kept[kBlock];
  vst1q_u8(kept, bytes);
  std::memcpy(out, kept, channels);
}

}  // namespace
}  // namespace nas
