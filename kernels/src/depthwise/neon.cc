// Depthwise convolution with plain NEON: 16 channels at a time, exact products of 16 bits.
#include "neon_frame.h"

namespace nas {
namespace {

class Depthwise final : public ConvU8 {
 public:
  explicit Depthwise(const ConvU8Params& params)
      : frame_(params, 0), zero_out_(params.zero_out), taps_(params.shape.taps()) {
    const int channels = params.shape.channels;
    weights_ = Aligned<std::int16_t>(frame_.pixel * taps_);
    bias_ = Aligned<std::int32_t>(frame_.pixel);
    multiplier_ = Aligned<float>(frame_.pixel);
    for (int c = 0; c < channels; ++c) {
      bias_[c] = params.bias[c];
      multiplier_[c] = params.multiplier[c];
      for (int k = 0; k < taps_; ++k) {
        weights_[(std::size_t(c / kBlock) * taps_ + k) * kBlock + c % kBlock] = params.weights[std::size_t(c) * taps_ + k];
      }
    }
  }

  const char* kernel() const override { return "depthwise_u8s8u8_1x16_neon"; }
  std::size_t scratch_bytes() const override { return frame_.bytes(); }

  void run(const ConvShape& s, const std::uint8_t* input, void* output, std::uint8_t* scratch) const override {
    std::uint8_t* out = static_cast<std::uint8_t*>(output);
    for (int n = 0; n < s.batch; ++n, input += std::size_t(s.height) * s.width * s.in_pixel) {
      frame_.fill(s, input, scratch);
      for (int y = 0; y < s.out_height; ++y) {
        const std::uint8_t* from = scratch + y * s.stride_h * frame_.pitch;
        for (int x = 0; x < s.out_width; ++x, out += s.out_pixel, from += s.stride_w * frame_.pixel) {
          for (int block = 0; block < frame_.blocks; ++block) pixel(from + block * kBlock, out + block * kBlock, block);
        }
      }
    }
  }

 private:
  void pixel(const std::uint8_t* from, std::uint8_t* out, int block) const {
    const ConvShape& s = frame_.s;
    const std::int16_t* weights = weights_ + std::size_t(block) * taps_ * kBlock;
    int32x4_t sums[4];
    for (int v = 0; v < 4; ++v) sums[v] = vld1q_s32(bias_ + block * kBlock + 4 * v);
    for (int ky = 0; ky < s.kernel_h; ++ky, from += frame_.pitch) {
      const std::uint8_t* at = from;
      for (int kx = 0; kx < s.kernel_w; ++kx, at += frame_.pixel, weights += kBlock) {
        const uint8x16_t bytes = vld1q_u8(at);
        const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes)));
        const int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(bytes));
        const int16x8_t w = vld1q_s16(weights), w2 = vld1q_s16(weights + 8);
        sums[0] = vmlal_s16(sums[0], vget_low_s16(low), vget_low_s16(w));
        sums[1] = vmlal_high_s16(sums[1], low, w);
        sums[2] = vmlal_s16(sums[2], vget_low_s16(high), vget_low_s16(w2));
        sums[3] = vmlal_high_s16(sums[3], high, w2);
      }
    }
    store_block(out, sums, multiplier_ + block * kBlock, vdupq_n_s16(std::int16_t(zero_out_)), s.channels - block * kBlock);
  }

  Frame frame_;
  std::int32_t zero_out_;
  int taps_;
  Aligned<std::int16_t> weights_;
  Aligned<std::int32_t> bias_;
  Aligned<float> multiplier_;
};

}  // namespace

ConvU8* depthwise_u8_neon(const ConvU8Params& params) {
  if (!params.shape.depthwise() || params.float_out || !sums_fit(params)) return nullptr;
  return new Depthwise(params);
}

}  // namespace nas
