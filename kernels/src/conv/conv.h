// A convolution over channels-last maps: shared by all its kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nas/level.h"

namespace nas {

// Sides, strides and padding; every product of them fits in 31 bits (conv_shape_of checks).
struct ConvShape {
  int batch, height, width, channels;
  int out_height, out_width, outputs;
  int kernel_h, kernel_w, stride_h, stride_w;
  int pad_top, pad_left, pad_bottom, pad_right;
  int groups;
  int in_pixel, out_pixel;  // elements from a pixel to the next; more than channels or outputs where others do the rest

  int group_channels() const { return channels / groups; }
  int taps() const { return kernel_h * kernel_w * group_channels(); }
  bool depthwise() const { return groups == channels && outputs == channels; }
  std::size_t inputs_size() const { return std::size_t(batch) * height * width * channels; }
};

// Bytes times signed weights, summed in 32 bits with wrap-around, then requantized to bytes or scaled to floats.
struct ConvU8Params {
  ConvShape shape;
  const std::int8_t* weights;      // (outputs, kernel_h, kernel_w, group_channels)
  const std::int32_t* bias;        // with the input's zero point folded in
  const float* multiplier;         // per output
  std::int32_t zero_in, zero_out;  // padding has the value zero_in
  bool float_out;
};

class ConvU8 {
 public:
  virtual ~ConvU8();
  // `s` is the shape that the kernel was made for, or that of some of its images or lines (see slices.h).
  virtual void run(const ConvShape& s, const std::uint8_t* input, void* output, std::uint8_t* scratch) const = 0;
  virtual std::size_t scratch_bytes() const { return 0; }
  virtual const char* kernel() const = 0;
};

// The reference: every other kernel equals it bit for bit.
ConvU8* conv_u8_portable(const ConvU8Params& params);
// The caller owns what they return; nullptr where the shape is not theirs. Files for one ISA instantiate no template of
// the standard library, whose code the linker could lend to the portable ones.
ConvU8* conv_u8_avx512vnni(const ConvU8Params& params);
ConvU8* depthwise_u8_avx512vnni(const ConvU8Params& params);
ConvU8* depthwise3x3_u8_avx512vnni(const ConvU8Params& params);
ConvU8* conv_u8_avx2(const ConvU8Params& params);
ConvU8* depthwise_u8_avx2(const ConvU8Params& params);
ConvU8* conv_u8_avxvnni(const ConvU8Params& params);
ConvU8* depthwise_u8_avxvnni(const ConvU8Params& params);
ConvU8* conv_u8_avx512vlvnni(const ConvU8Params& params);
ConvU8* depthwise_u8_avx512vlvnni(const ConvU8Params& params);
ConvU8* conv_u8_neon(const ConvU8Params& params);
ConvU8* conv_u8_neondot(const ConvU8Params& params);
ConvU8* conv_u8_neoni8mm(const ConvU8Params& params);
ConvU8* depthwise_u8_neon(const ConvU8Params& params);
ConvU8* depthwise_u8_neondot(const ConvU8Params& params);
ConvU8* depthwise_u8_neoni8mm(const ConvU8Params& params);
// That of the level, which is available; never nullptr.
ConvU8* conv_u8(const ConvU8Params& params, Level level);

struct ConvF32Params {
  ConvShape shape;
  const float* weights;
  const float* bias;
  int activation;  // of unary.h, applied to every output
  float alpha, beta;
};

class ConvF32 {
 public:
  virtual ~ConvF32();
  virtual void run(const ConvShape& s, const float* input, float* output, std::uint8_t* scratch) const = 0;
  virtual std::size_t scratch_bytes() const { return 0; }
  virtual const char* kernel() const = 0;
};

ConvF32* conv_f32_portable(const ConvF32Params& params);
ConvF32* conv_f32_avx2(const ConvF32Params& params);
ConvF32* conv_f32_avx512(const ConvF32Params& params);
ConvF32* conv_f32_neon(const ConvF32Params& params);
// That of the level, which is available; never nullptr.
ConvF32* conv_f32(const ConvF32Params& params, Level level);

}  // namespace nas
