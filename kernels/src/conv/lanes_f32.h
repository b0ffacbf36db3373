// conv_f32 in vectors of 16: up to 6 pixels by 16 outputs, or 16 channels of a depthwise window. Sums run over the window and the
// channels in order, in one rounding each, so every instruction set gives the same bits.
#pragma once

#include <cstring>

#include "../real/unary_lanes.h"
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
    // Pixels that follow each other, as they are; all else is read from a frame of zeros around a copy.
    flat_ = !deep_ && taps_ == 1 && s_.stride_h == 1 && s_.stride_w == 1 && frame_w_ == s_.width && frame_h_ == s_.height;
    // Depthwise windows are read 16 channels at a time, so their frame has that many.
    frame_c_ = deep_ ? columns_ : flat_ ? s_.in_pixel : s_.channels;
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
    return flat_ ? 0 : (std::size_t(frame_w_) * frame_h_ * frame_c_ + 16) * sizeof(float);
  }

  void run(const ConvShape& s, const float* input, float* output, std::uint8_t* scratch) const override {
    float* frame = reinterpret_cast<float*>(scratch);
    const int lines = flat_ ? 1 : s.out_height, width = flat_ ? s.height * s.width : s.out_width;
    for (int n = 0; n < s.batch; ++n, input += std::size_t(s.height) * s.width * s.in_pixel) {
      if (!flat_) fill(s, input, frame);
      const float* map = flat_ ? input : frame;
      for (int y = 0; y < lines; ++y) {
        for (int first = 0; first < columns_; first += 16) {
          float* out = output + (std::size_t(n) * lines + y) * width * s.out_pixel + first;
          const float* from = map + std::size_t(y) * s.stride_h * frame_w_ * frame_c_ + (deep_ ? first : 0);
          deep_ ? line<true>(from, out, width, first) : line<false>(from, out, width, first);
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

  template <bool DEEP>
  void line(const float* from, float* out, int width, int first) const {
    for (int x = 0; x < width;) {
      const int left = width - x, rows = left >= 6 && left != 8 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
      if (rows == 6) tile<6, DEEP>(from, out, x, first);
      if (rows == 4) tile<4, DEEP>(from, out, x, first);
      if (rows == 2) tile<2, DEEP>(from, out, x, first);
      if (rows == 1) tile<1, DEEP>(from, out, x, first);
      x += rows;
    }
  }

  template <int ROWS, bool DEEP>
  NAS_WHOLE void tile(const float* from, float* out, int x, int first) const {
    const std::ptrdiff_t step = std::ptrdiff_t(s_.stride_w) * frame_c_;
    const float* weights = weights_ + std::size_t(first / 16) * taps_ * depth_ * 16;
    Floats sums[ROWS];
#pragma GCC unroll 6
    for (Floats& sum : sums) sum = load<Floats>(bias_ + first);
    for (int k = 0; k < taps_; ++k) {
      const float* at = from + (std::size_t(k / s_.kernel_w) * frame_w_ + k % s_.kernel_w) * frame_c_ + x * step;
      for (int c = 0; c < depth_; ++c, weights += 16) {
        const Floats weight = load<Floats>(weights);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; ++r) {
          const float* pixel = at + r * step + c;
          sums[r] = fused(DEEP ? load<Floats>(pixel) : splat(*pixel), weight, sums[r]);
        }
      }
    }
    const int left = s_.outputs - first < 16 ? s_.outputs - first : 16;
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; ++r) finish(sums[r], out + std::size_t(x + r) * s_.out_pixel, left);
  }

  // Once for all tiles, which would each have every function.
  [[gnu::noinline]] void finish(const Floats& sum, float* to, int left) const {
    if (has_lanes(code_)) {
      const Floats result = unary_lanes(code_, alpha_, beta_, sum);
      left == kLanes ? store(to, result) : store_some(to, result, left);
    } else {
      float sixteen[kLanes];
      store(sixteen, sum);
      unary_row(code_, alpha_, beta_, sixteen, std::size_t(left), to);
    }
  }

  ConvShape s_;
  int code_;
  float alpha_, beta_;
  bool deep_, flat_;
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
