// Operations on single elements: additions and products of quantized tensors, byte tables, and the way between float and
// 8 bits. Roundings and saturations are those of ONNX Runtime on x86_64; every level gives the same bytes.
#pragma once

#include <cstdint>

#include "nas/level.h"

namespace nas {

// real = scale * (byte - zero_point)
struct Quantization {
  float scale = 1.0F;
  std::int32_t zero_point = 0;
  bool is_signed = false;  // s8 instead of u8
};

// c = a + b or a * b; all three are u8 or all are s8, as `c.is_signed` says. With b_count 1 the one b serves all. Results are
// clipped to low..high. c may be a or b.
struct BinaryArgs {
  std::int64_t count = 0;
  std::int64_t b_count = 0;
  const void* a_data = nullptr;
  const void* b_data = nullptr;
  void* c_data = nullptr;
  Quantization a, b, c;
  std::int32_t low = 0;
  std::int32_t high = 255;
};

struct ElementwiseKernels {
  Level level;
  // rint(fma(a, sa/sc, fma(b, sb/sc, zc - fma(sa/sc, za, sb/sc * zb)))), QLinearAdd of ONNX Runtime.
  void (*add)(const BinaryArgs& args);
  // rint(float((a - za) * (b - zb)) * (sa * sb / sc) + zc), QLinearMul of ONNX Runtime.
  void (*multiply)(const BinaryArgs& args);
  // out[i] = table[in[i]]; for s8 the index is the byte's bits. out may be in.
  void (*lookup)(const std::uint8_t* in, std::int64_t count, const std::uint8_t* table, std::uint8_t* out);
  // QuantizeLinear: rint(x / scale) + zero point, saturated. NaN becomes the lowest value.
  void (*quantize)(const float* x, std::int64_t count, const Quantization& to, void* out);
  // DequantizeLinear: (x - zero point) * scale.
  void (*dequantize)(const void* x, std::int64_t count, const Quantization& from, float* out);
  // The smallest and the largest of x and 0.
  void (*range)(const float* x, std::int64_t count, float* low, float* high);
};

const ElementwiseKernels& elementwise_kernels(Level level);

// DynamicQuantizeLinear's scale and zero point (u8) for values from low <= 0 to high >= 0.
Quantization dynamic_quantization(float low, float high);

// What a byte table can compute.
enum class Function {
  identity,
  relu,
  leaky_relu,    // alpha
  clip,          // alpha to beta
  sigmoid,
  hard_sigmoid,  // max(0, min(1, alpha * x + beta))
  hard_swish,
  silu,
  tanh,
  erf,
  elu,           // alpha
  gelu,          // with erf
  gelu_tanh,
  exp,
  sqrt,
  square,
};

// table[bits of the input byte] = bits of the output byte: dequantized, the function in double precision rounded to float,
// quantized as QuantizeLinear does.
void fill_table(Function function, float alpha, float beta, const Quantization& from, const Quantization& to,
                std::uint8_t* table);

}  // namespace nas
