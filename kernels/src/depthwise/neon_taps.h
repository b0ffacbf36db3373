// Depthwise convolution with NEON's products of four bytes: the taps of four rows or columns are interleaved per channel, so
// that one product sums them. `T` gives the product:
//   kFlip                                            what is xored into activations before they are multiplied
//   int32x4_t dot(int32x4_t sum, int8x16_t x, int8x16_t w)
// Windows of 3x3 keep three columns of interleaved pixels in registers; others interleave four taps after the other.
// Internal linkage: included by files for one ISA each.
#pragma once

#include "neon_frame.h"

namespace nas {
namespace {

// Four vectors: bytes 4e..4e+3 of vector v are those of channel 4v+e in a, b, c, d.
struct Four {
  int8x16_t at[4];
};

inline Four interleaved(int8x16_t a, int8x16_t b, int8x16_t c, int8x16_t d) {
  const int16x8_t ab = vreinterpretq_s16_s8(vzip1q_s8(a, b)), cd = vreinterpretq_s16_s8(vzip1q_s8(c, d));
  const int16x8_t ab2 = vreinterpretq_s16_s8(vzip2q_s8(a, b)), cd2 = vreinterpretq_s16_s8(vzip2q_s8(c, d));
  return {{vreinterpretq_s8_s16(vzip1q_s16(ab, cd)), vreinterpretq_s8_s16(vzip2q_s16(ab, cd)),
           vreinterpretq_s8_s16(vzip1q_s16(ab2, cd2)), vreinterpretq_s8_s16(vzip2q_s16(ab2, cd2))}};
}

template <class T>
class DepthwiseTaps final : public ConvU8 {
 public:
  DepthwiseTaps(const ConvU8Params& params, const char* kernel)
      : frame_(params, T::kFlip), zero_out_(params.zero_out), kernel_(kernel) {
    const ConvShape& s = params.shape;
    // A 3x3 window is three columns of three rows; others are one list of taps, row by row.
    columns_ = s.kernel_h == 3 && s.kernel_w == 3 && s.stride_w <= 2;
    groups_ = columns_ ? 3 : (s.taps() + 3) / 4;
    weights_ = Aligned<std::int8_t>(frame_.pixel * groups_ * 4);
    bias_ = Aligned<std::int32_t>(frame_.pixel);
    multiplier_ = Aligned<float>(frame_.pixel);
    steps_ = Aligned<std::ptrdiff_t>(std::size_t(groups_) * 4);
    for (int k = 0; k < s.taps(); ++k) steps_[k] = k / s.kernel_w * frame_.pitch + k % s.kernel_w * frame_.pixel;
    for (int c = 0; c < s.channels; ++c) {
      std::int32_t sum = 0;
      for (int k = 0; k < s.taps(); ++k) {
        const std::int8_t weight = params.weights[std::size_t(c) * s.taps() + k];
        const int place = columns_ ? k % 3 * 4 + k / 3 : k;
        weights_[((std::size_t(c / kBlock) * groups_ + place / 4) * kBlock + c % kBlock) * 4 + place % 4] = weight;
        sum += weight;
      }
      bias_[c] = std::int32_t(std::uint32_t(params.bias[c]) + std::uint32_t(sum) * std::uint32_t(T::kFlip));
      multiplier_[c] = params.multiplier[c];
    }
  }

  const char* kernel() const override { return kernel_; }
  std::size_t scratch_bytes() const override { return frame_.bytes(); }

  void run(const ConvShape& s, const std::uint8_t* input, void* output, std::uint8_t* scratch) const override {
    std::uint8_t* out = static_cast<std::uint8_t*>(output);
    const std::ptrdiff_t line = std::ptrdiff_t(s.out_width) * s.out_pixel;
    for (int n = 0; n < s.batch; ++n, input += std::size_t(s.height) * s.width * s.in_pixel) {
      frame_.fill(s, input, scratch);
      const std::int8_t* map = reinterpret_cast<const std::int8_t*>(scratch);
      for (int y = 0; y < s.out_height; ++y, map += s.stride_h * frame_.pitch, out += line) {
        for (int block = 0; block < frame_.blocks; ++block) {
          const std::int8_t* from = map + block * kBlock;
          if (!columns_) {
            pixels(from, out + block * kBlock, block);
          } else if (s.stride_w == 1) {
            line3x3<1>(from, out + block * kBlock, block);
          } else {
            line3x3<2>(from, out + block * kBlock, block);
          }
        }
      }
    }
  }

 private:
  // The fourth row has no weight: any bytes will do.
  static Four column(const std::int8_t* from, std::ptrdiff_t pitch) {
    const int8x16_t third = vld1q_s8(from + 2 * pitch);
    return interleaved(vld1q_s8(from), vld1q_s8(from + pitch), third, third);
  }

  struct Line {
    const std::int32_t* bias;
    const float* multiplier;
    int16x8_t zero;
    int channels;
    Four weights[3];

    void pixel(const Four& left, const Four& middle, const Four& right, std::uint8_t* out) const {
      int32x4_t sums[4];
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        sums[v] = T::dot(vld1q_s32(bias + 4 * v), left.at[v], weights[0].at[v]);
        sums[v] = T::dot(sums[v], middle.at[v], weights[1].at[v]);
        sums[v] = T::dot(sums[v], right.at[v], weights[2].at[v]);
      }
      store_block(out, sums, multiplier, zero, channels);
    }
  };

  // Three pixels at a time, so that the columns that stay need not move between registers.
  template <int STRIDE>
  void line3x3(const std::int8_t* from, std::uint8_t* out, int block) const {
    const ConvShape& s = frame_.s;
    const std::ptrdiff_t next = frame_.pixel, pitch = frame_.pitch;
    Line line{bias_ + block * kBlock, multiplier_ + block * kBlock, vdupq_n_s16(std::int16_t(zero_out_)),
              s.channels - block * kBlock, {}};
    const std::int8_t* weights = weights_ + std::size_t(block) * groups_ * kBlock * 4;
#pragma GCC unroll 3
    for (int g = 0; g < 3; ++g) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) line.weights[g].at[v] = vld1q_s8(weights + (4 * g + v) * 16);
    }
    const auto read = [&] {
      const Four found = column(from, pitch);
      from += next;
      return found;
    };
    Four a = read(), b = STRIDE == 1 ? read() : a, c = a;
    for (int x = 0; x < s.out_width; x += 3) {
      if (STRIDE == 2) b = read();
      c = read();
      line.pixel(a, b, c, out);
      out += s.out_pixel;
      if (x + 1 == s.out_width) break;
      if (STRIDE == 2) {
        a = read();
        b = read();
        line.pixel(c, a, b, out);
      } else {
        a = read();
        line.pixel(b, c, a, out);
      }
      out += s.out_pixel;
      if (x + 2 == s.out_width) break;
      if (STRIDE == 2) {
        c = read();
        a = read();
        line.pixel(b, c, a, out);
      } else {
        b = read();
        line.pixel(c, a, b, out);
      }
      out += s.out_pixel;
    }
  }

  void pixels(const std::int8_t* from, std::uint8_t* out, int block) const {
    const ConvShape& s = frame_.s;
    const int16x8_t zero = vdupq_n_s16(std::int16_t(zero_out_));
    for (int x = 0; x < s.out_width; ++x, from += s.stride_w * frame_.pixel, out += s.out_pixel) {
      const std::int8_t* weights = weights_ + std::size_t(block) * groups_ * kBlock * 4;
      int32x4_t sums[4];
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) sums[v] = vld1q_s32(bias_ + block * kBlock + 4 * v);
      const std::ptrdiff_t* step = steps_;
      for (int g = 0; g < groups_; ++g, step += 4, weights += 64) {
        const Four taps = interleaved(vld1q_s8(from + step[0]), vld1q_s8(from + step[1]), vld1q_s8(from + step[2]),
                                      vld1q_s8(from + step[3]));
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) sums[v] = T::dot(sums[v], taps.at[v], vld1q_s8(weights + 16 * v));
      }
      store_block(out, sums, multiplier_ + block * kBlock, zero, s.channels - block * kBlock);
    }
  }

  Frame frame_;
  std::int32_t zero_out_;
  const char* kernel_;
  bool columns_;
  int groups_;
  Aligned<std::int8_t> weights_;
  Aligned<std::int32_t> bias_;
  Aligned<float> multiplier_;
  Aligned<std::ptrdiff_t> steps_;  // of each tap from the window's first; the missing ones read the first
};

}  // namespace
}  // namespace nas
