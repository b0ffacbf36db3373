// A dense convolution over one kind of vector, for ISAs without a product of unsigned and signed bytes.
//
// The map is copied once into a frame of the elements that the ISA multiplies, padding included; then a tile of kRows
// pixels by kVectors vectors of outputs walks the rows of the window. `T` gives the vector:
//   Element, Weight            what a frame and packed weights hold
//   kGroup, kLanes             elements summed into one lane by one product, lanes
//   kRows, kVectors            tile
//   kShift                     what an element is lower than the byte that it stands for
//   Sum load(const int32_t*); Sum mac(Sum, const Element* group, const Weight*)
//   void store(uint8_t* out, const Sum*, const float* multiplier, int zero)      kLanes * kVectors bytes
//   void store(float* out, const Sum*, const float* multiplier)
// Internal linkage: included by files for one ISA each.
#pragma once

#include <cstring>

#include "conv.h"
#include "packed.h"

namespace nas {
namespace {

template <class T>
class BodyConv final : public ConvU8 {
 public:
  BodyConv(const ConvU8Params& params, const char* kernel)
      : s_(params.shape), zero_in_(params.zero_in), zero_out_(params.zero_out), float_(params.float_out), kernel_(kernel) {
    depth_ = s_.kernel_w * s_.channels;
    groups_ = (depth_ + T::kGroup - 1) / T::kGroup;
    frame_w_ = s_.width + s_.pad_left + s_.pad_right;
    frame_h_ = s_.height + s_.pad_top + s_.pad_bottom;
    panels_ = (s_.outputs + kColumns - 1) / kColumns;
    weights_ = Aligned<typename T::Weight>(panel_size() * panels_);
    bias_ = Aligned<std::int32_t>(std::size_t(kColumns) * panels_);
    multiplier_ = Aligned<float>(std::size_t(kColumns) * panels_);
    for (int output = 0; output < s_.outputs; ++output) pack(params, output);
  }

  const char* kernel() const override { return kernel_; }
  std::size_t scratch_bytes() const override {
    return (std::size_t(frame_w_) * frame_h_ * s_.channels + 64) * sizeof(typename T::Element);
  }

  void run(const ConvShape& s, const std::uint8_t* input, void* output, std::uint8_t* scratch) const override {
    auto* frame = reinterpret_cast<typename T::Element*>(scratch);
    const std::size_t image = std::size_t(s.height) * s.width * s.channels;
    const std::size_t out_image = std::size_t(s.out_height) * s.out_width * s.out_pixel;
    const bool flat = s.kernel_h == 1 && s.kernel_w == 1 && s.stride_h == 1 && s.stride_w == 1;
    const int lines = flat ? 1 : s.out_height;
    const int width = flat ? s.out_height * s.out_width : s.out_width;
    for (int n = 0; n < s.batch; ++n) {
      fill(s, input + n * image, frame);
      for (int panel = 0; panel < panels_; ++panel) {
        for (int y = 0; y < lines; ++y) {
          for (int x = 0; x < width; x += T::kRows) {
            const int rows = width - x < T::kRows ? width - x : T::kRows;
            const std::size_t at = n * out_image + (std::size_t(y) * width + x) * s.out_pixel + panel * kColumns;
            const auto* from = frame + (std::size_t(y) * s.stride_h * frame_w_ + std::size_t(x) * s.stride_w) * s.channels;
            rows == T::kRows ? tile<T::kRows>(from, output, at, panel) : tail(rows, from, output, at, panel);
          }
        }
      }
    }
  }

 private:
  static constexpr int kColumns = T::kLanes * T::kVectors;

  std::size_t panel_size() const { return std::size_t(s_.kernel_h) * groups_ * T::kGroup * kColumns; }

  void pack(const ConvU8Params& params, int output) {
    const int panel = output / kColumns, column = output % kColumns;
    const std::int8_t* from = params.weights + std::size_t(output) * s_.kernel_h * depth_;
    std::uint32_t sum = 0;
    for (int ky = 0; ky < s_.kernel_h; ++ky) {
      for (int k = 0; k < depth_; ++k) {
        const std::int8_t weight = from[ky * depth_ + k];
        sum += std::uint32_t(std::int32_t(weight));
        const std::size_t step = std::size_t(ky) * groups_ + k / T::kGroup;
        weights_[panel_size() * panel + (step * kColumns + column) * T::kGroup + k % T::kGroup] = weight;
      }
    }
    // In 32 bits with wrap-around, as the sums are.
    bias_[output] = std::int32_t(std::uint32_t(params.bias[output]) + sum * std::uint32_t(T::kShift));
    multiplier_[output] = params.multiplier[output];
  }

  void fill(const ConvShape& s, const std::uint8_t* input, typename T::Element* frame) const {
    const std::size_t line = std::size_t(s.width) * s.channels;
    const auto padding = [&](std::size_t count) {
      for (std::size_t i = 0; i < count; ++i) *frame++ = typename T::Element(zero_in_ - T::kShift);
    };
    padding((std::size_t(frame_w_) * s.pad_top + s.pad_left) * s.channels);
    for (int y = 0; y < s.height; ++y) {
      for (std::size_t i = 0; i < line; ++i) frame[i] = typename T::Element(input[i] - T::kShift);
      frame += line;
      input += line;
      padding(std::size_t(s.pad_right + (y + 1 < s.height ? s.pad_left : 0)) * s.channels);
    }
    padding(std::size_t(frame_w_) * s.pad_bottom * s.channels);
  }

  template <int ROWS>
  void tile(const typename T::Element* from, void* output, std::size_t at, int panel) const {
    const std::ptrdiff_t step = std::ptrdiff_t(s_.stride_w) * s_.channels;
    typename T::Sum sums[ROWS][T::kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < T::kVectors; ++v) {
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) sums[r][v] = T::load(bias_ + panel * kColumns + v * T::kLanes);
    }
    const typename T::Weight* weights = weights_ + panel_size() * panel;
    for (int ky = 0; ky < s_.kernel_h; ++ky, from += std::ptrdiff_t(frame_w_) * s_.channels) {
      const typename T::Element* a = from;
      for (int k = 0; k < groups_; ++k, a += T::kGroup, weights += kColumns * T::kGroup) {
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) T::template mac<T::kVectors>(sums[r], a + r * step, weights);
      }
    }
    const int left = s_.outputs - panel * kColumns;
    const float* multiplier = multiplier_ + panel * kColumns;
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r, at += s_.out_pixel) {
      if (float_) {
        float* out = static_cast<float*>(output) + at;
        float kept[kColumns];
        T::store(left >= kColumns ? out : kept, sums[r], multiplier);
        if (left < kColumns) std::memcpy(out, kept, left * sizeof(float));
      } else {
        std::uint8_t* out = static_cast<std::uint8_t*>(output) + at;
        std::uint8_t kept[kColumns];
        T::store(left >= kColumns ? out : kept, sums[r], multiplier, zero_out_);
        if (left < kColumns) std::memcpy(out, kept, left);
      }
    }
  }

  void tail(int rows, const typename T::Element* from, void* output, std::size_t at, int panel) const {
    const std::ptrdiff_t step = std::ptrdiff_t(s_.stride_w) * s_.channels;
    for (; rows >= 2; rows -= 2, from += 2 * step, at += 2 * std::size_t(s_.out_pixel)) tile<2>(from, output, at, panel);
    if (rows == 1) tile<1>(from, output, at, panel);
  }

  ConvShape s_;
  std::int32_t zero_in_, zero_out_;
  bool float_;
  const char* kernel_;
  int depth_, groups_, frame_w_, frame_h_, panels_;
  Aligned<typename T::Weight> weights_;
  Aligned<std::int32_t> bias_;
  Aligned<float> multiplier_;
};

}  // namespace
}  // namespace nas
