// Operators on bytes one by one: quantization, tables, addition and multiplication of quantized values, means.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nas/level.h"

namespace nas {

// QLinearAdd: fma(a, ratio_a, fma(b, ratio_b, fixed)), rounded to nearest even and saturated.
struct AddParams {
  float ratio_a, ratio_b, fixed;
};

// QLinearMul: (a - zero_a) * (b - zero_b) * ratio + zero_out, no step fused with another.
struct MulParams {
  float zero_a, zero_b, ratio, zero_out;
};

// One set of kernels; every one equals the portable set bit for bit.
struct ByteKernels {
  const char* isa;
  void (*quantize)(const float* in, std::uint8_t* out, std::size_t n, float scale, std::int32_t zero);
  // Planes of floats, one per channel and `plane` apart, to `pixels` pixels of `channels` bytes.
  void (*quantize_planes)(const float* in, std::uint8_t* out, std::size_t pixels, std::size_t channels, std::size_t plane,
                          float scale, std::int32_t zero);
  void (*dequantize)(const std::uint8_t* in, float* out, std::size_t n, float scale, std::int32_t zero);
  void (*table)(const std::uint8_t* in, std::uint8_t* out, std::size_t n, const std::uint8_t* table);
  void (*lookup)(const std::uint8_t* in, float* out, std::size_t n, const float* table);
  void (*add)(const std::uint8_t* a, const std::uint8_t* b, std::uint8_t* out, std::size_t n, const AddParams& params);
  // b has `channels` bytes, read again for each of the `pixels`; for equal shapes pixels is 1.
  void (*multiply)(const std::uint8_t* a, const std::uint8_t* b, std::uint8_t* out, std::size_t pixels,
                   std::size_t channels, const MulParams& params);
  // Requantized sums over `pixels` of each channel; `sums` has `channels` elements.
  void (*mean)(const std::uint8_t* in, std::uint8_t* out, std::size_t pixels, std::size_t channels, std::int32_t* sums,
               float multiplier, std::int32_t zero_in, std::int32_t zero_out);
};

extern const ByteKernels byte_kernels_portable;
extern const ByteKernels byte_kernels_avx2;
extern const ByteKernels byte_kernels_avx512;
extern const ByteKernels byte_kernels_neon;
// Those of the level, which is available.
const ByteKernels& byte_kernels(Level level);
// For processors with AVX512-VBMI: `table` of the above in four instructions.
void table_avx512vbmi(const std::uint8_t* in, std::uint8_t* out, std::size_t n, const std::uint8_t* entries);

}  // namespace nas
