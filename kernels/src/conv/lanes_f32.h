// conv_f32 in vectors of 16: 4 pixels by 16 outputs, or 16 channels of a depthwise window. Sums run over the window and the
// channels in order, in one rounding each, so every instruction set gives the same bits.
#pragma once

#include <cstring>

#include "../real/unary.h"
#include "../vectors.h"
#include "conv.h"
#include "packed.h"

namespace nas {
namespace {

class ConvLanes final : public ConvF32 {
 public:
  ConvLanes(const ConvF32Params& params, const char* dense, const char* deep)
      : s_(params.shape), code_(params.activation), alpha_(params.alpha), beta_(params.beta), deep_(s_.depthwise()),
        kernel_(deep_ ? deep : dense) {
    columns_ = (s_.outputs + 15) / 16 * 16;
    depth_ = s_.group_channels();
    taps_ = s_.kernel_h * s_.kernel_w;
    frame_w_ = s_.width + s_.pad_left + s_.pad_right;
    frame_h_ = s_.height + s_.pad_top + s_.pad_bottom;
    // Depthwise windows are read 16 channels at a time, so their frame has that many.
    frame_c_ = deep_ ? columns_ : s_.channels;
    weights_ = Aligned<float>(std::size_t(taps_) * depth_ * columns_);
    bias_ = Aligned<float>(columns_);
    for (int output = 0; output < s_.outputs; ++output) {
      bias_[output] = params.bias[output];
      for (int k = 0; k < taps_ * depth_; ++k) {
        weights_[(std::size_t(output / 16) * taps_ * depth_ + k) * 16 + output % 16] =
            params.weights[std::size_t(output) * taps_ * depth_ + k];
      }
    }
  }

  const char* kernel() const override { return kernel_; }
  std::size_t scratch_bytes() const override {
    return (std::size_t(frame_w_) * frame_h_ * frame_c_ + 16) * sizeof(float);
  }

  void run(const ConvShape& s, const float* input, float* output, std::uint8_t* scratch) const override {
    float* frame = reinterpret_cast<float*>(scratch);
    for (int n = 0; n < s.batch; ++n) {
      fill(s, input + std::size_t(n) * s.height * s.width * s.in_pixel, frame);
      for (int y = 0; y < s.out_height; ++y) {
        for (int first = 0; first < columns_; first += 16) {
          float* out = output + (std::size_t(n) * s.out_height + y) * s.out_width * s.out_pixel + first;
          const float* from = frame + std::size_t(y) * s.stride_h * frame_w_ * frame_c_ + (deep_ ? first : 0);
          int x = 0;
          for (; x + 4 <= s.out_width; x += 4) tile<4>(from, out, x, first);
          for (; x < s.out_width; ++x) tile<1>(from, out, x, first);
        }
      }
    }
  }

 private:
  void fill(const ConvShape& s, const float* input, float* frame) const {
    std::memset(frame, 0, std::size_t(frame_w_) * (s.height + s.pad_top + s.pad_bottom) * frame_c_ * sizeof(float));
    for (int y = 0; y < s.height; ++y) {
      float* to = frame + (std::size_t(y + s.pad_top) * frame_w_ + s.pad_left) * frame_c_;
      for (int x = 0; x < s.width; ++x, input += s.in_pixel, to += frame_c_) {
        std::memcpy(to, input, s.channels * sizeof(float));
      }
    }
  }

  template <int ROWS>
  void tile(const float* from, float* out, int x, int first) const {
    const std::ptrdiff_t step = std::ptrdiff_t(s_.stride_w) * frame_c_;
    const float* weights = weights_ + std::size_t(first / 16) * taps_ * depth_ * 16;
    Floats sums[ROWS];
    for (Floats& sum : sums) sum = load<Floats>(bias_ + first);
    for (int k = 0; k < taps_; ++k) {
      const float* at = from + (std::size_t(k / s_.kernel_w) * frame_w_ + k % s_.kernel_w) * frame_c_ + x * step;
      for (int c = 0; c < depth_; ++c, weights += 16) {
        const Floats weight = load<Floats>(weights);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r) {
          const float* pixel = at + r * step + c;
          sums[r] = fused(deep_ ? load<Floats>(pixel) : splat(*pixel), weight, sums[r]);
        }
      }
    }
    const int left = s_.outputs - first < 16 ? s_.outputs - first : 16;
    for (int r = 0; r < ROWS; ++r) {
      float sixteen[kLanes];
      store(sixteen, sums[r]);
      unary_row(code_, alpha_, beta_, sixteen, std::size_t(left), out + std::size_t(x + r) * s_.out_pixel);
    }
  }

  ConvShape s_;
  int code_;
  float alpha_, beta_;
  bool deep_;
  const char* kernel_;
  int columns_, depth_, taps_, frame_w_, frame_h_, frame_c_;
  Aligned<float> weights_, bias_;
};

// nullptr for groups of channels.
inline ConvF32* conv_in_lanes(const ConvF32Params& params, const char* dense, const char* deep) {
  return params.shape.groups == 1 || params.shape.depthwise() ? new ConvLanes(params, dense, deep) : nullptr;
}

}  // namespace
}  // namespace nas
