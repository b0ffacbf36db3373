#include "../real/unary.h"
#include "../requantize/requantize.h"
#include "conv.h"

namespace nas {
namespace {

// Calls product(weight index, input index or -1 for padding) for every tap of one output.
template <typename Product>
void each_tap(const ConvShape& s, int image, int y, int x, int output, const Product& product) {
  const int depth = s.group_channels(), first = output / (s.outputs / s.groups) * depth;
  std::size_t weight = std::size_t(output) * s.taps();
  for (int ky = 0; ky < s.kernel_h; ++ky) {
    for (int kx = 0; kx < s.kernel_w; ++kx, weight += depth) {
      const int row = y * s.stride_h - s.pad_top + ky, column = x * s.stride_w - s.pad_left + kx;
      const bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
      const std::ptrdiff_t at =
          ((std::ptrdiff_t(image) * s.height + row) * s.width + column) * s.in_pixel + first;
      for (int c = 0; c < depth; ++c) product(weight + c, inside ? at + c : -1);
    }
  }
}

template <typename Body>
void each_output(const ConvShape& s, const Body& body) {
  std::size_t at = 0;
  const std::size_t rest = std::size_t(s.out_pixel - s.outputs);
  for (int image = 0; image < s.batch; ++image) {
    for (int y = 0; y < s.out_height; ++y) {
      for (int x = 0; x < s.out_width; ++x, at += rest) {
        for (int output = 0; output < s.outputs; ++output) body(at++, image, y, x, output);
      }
    }
  }
}

class PortableU8 final : public ConvU8 {
 public:
  explicit PortableU8(const ConvU8Params& params) : p_(params) {}
  const char* kernel() const override { return p_.float_out ? "conv_u8s8f32_portable" : "conv_u8s8u8_portable"; }

  void run(const ConvShape& s, const std::uint8_t* input, void* output, std::uint8_t*) const override {
    each_output(s, [&](std::size_t at, int image, int y, int x, int channel) {
      std::uint32_t sum = static_cast<std::uint32_t>(p_.bias[channel]);
      each_tap(s, image, y, x, channel, [&](std::size_t weight, std::ptrdiff_t index) {
        const std::int32_t value = index < 0 ? p_.zero_in : input[index];
        sum += static_cast<std::uint32_t>(value * p_.weights[weight]);
      });
      const std::int32_t total = static_cast<std::int32_t>(sum);
      if (p_.float_out) {
        static_cast<float*>(output)[at] = static_cast<float>(total) * p_.multiplier[channel];
      } else {
        static_cast<std::uint8_t*>(output)[at] = requantize(total, p_.multiplier[channel], p_.zero_out);
      }
    });
  }

 private:
  ConvU8Params p_;
};

class PortableF32 final : public ConvF32 {
 public:
  explicit PortableF32(const ConvF32Params& params) : p_(params) {}
  const char* kernel() const override { return "conv_f32_portable"; }

  void run(const ConvShape& s, const float* input, float* output, std::uint8_t*) const override {
    each_output(s, [&](std::size_t at, int image, int y, int x, int channel) {
      float sum = p_.bias[channel];
      each_tap(s, image, y, x, channel, [&](std::size_t weight, std::ptrdiff_t index) {
        if (index >= 0) sum += input[index] * p_.weights[weight];
      });
      output[at] = unary(p_.activation, p_.alpha, p_.beta, sum);
    });
  }

 private:
  ConvF32Params p_;
};

}  // namespace

ConvU8::~ConvU8() = default;
ConvF32::~ConvF32() = default;

ConvU8* conv_u8_portable(const ConvU8Params& params) { return new PortableU8(params); }
ConvF32* conv_f32_portable(const ConvF32Params& params) { return new PortableF32(params); }

}  // namespace nas
