// Products of 8-bit activations and 8-bit weights with exact 32-bit sums, and the one rule by which sums become outputs.
//
// Nothing here throws or allocates. Every kernel gives the same bytes as the portable one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nas/level.h"

namespace nas {

enum class GemmOutput : std::int32_t { u8, s8, f32, s32 };

// With sum = bias[j] + row_term[i] + (over k) a[i][k] * w[j][k], modulo 2^32, output (i, j) is, like ONNX Runtime's,
//   u8, s8: round(float(sum) * scale[j]) + zero_point, clipped to low..high; ties go to the even integer
//   f32:    float(sum) * scale[j] + shift[j], rounded after the product and after the sum
//   s32:    sum
// Arrays hold n entries (row_term: m). A null bias, row_term or shift counts as zeros; scale may be null for s32.
struct GemmEpilogue {
  GemmOutput output = GemmOutput::u8;
  std::int32_t zero_point = 0;
  std::int32_t low = 0;  // within the output's type; 0 and 255 clip u8 to nothing less than its range
  std::int32_t high = 255;
  const std::int32_t* bias = nullptr;
  const std::int32_t* row_term = nullptr;
  const float* scale = nullptr;
  const float* shift = nullptr;
};

// Row i of `a` starts at a + i * lda bytes, row i of `c` at element i * ldc. Exactly k bytes are read of each row of `a`
// and n elements written of each row of `c`; `c` overlaps neither `a` nor the arrays of the epilogue.
struct GemmArgs {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  const void* a = nullptr;
  std::int64_t lda = 0;
  bool a_signed = false;  // s8 instead of u8
  const void* packed = nullptr;
  void* c = nullptr;
  std::int64_t ldc = 0;
  GemmEpilogue epilogue;
};

// One implementation. Weights are packed by the kernel that runs them: layouts differ.
struct GemmKernel {
  Level level;
  const char* name;  // types, tile and ISA
  // Bytes that pack writes. The buffer is aligned to kGemmAlign bytes.
  std::size_t (*packed_bytes)(std::int64_t n, std::int64_t k);
  // Weight (j, k) is read at w[j * stride_n + k * stride_k]: strides (k, 1) for weights stored by output, (1, n) for
  // those stored by input as in MatMul.
  void (*pack)(const std::int8_t* w, std::int64_t stride_n, std::int64_t stride_k, std::int64_t n, std::int64_t k,
               void* packed);
  void (*run)(const GemmArgs& args);
};

constexpr std::size_t kGemmAlign = 64;

// The kernel of the level, or of the highest level below it that has one; its `level` says which. The level is available.
const GemmKernel& gemm_kernel(Level level);

// bias[j] = (bias_in ? bias_in[j] : 0) - a_zero * (sum over k of w[j][k]) + k * a_zero * w_zero, modulo 2^32: what makes
// the sum of products exact for activations with a zero point. Weights with a zero point also need gemm_row_terms.
void gemm_fold_bias(const std::int8_t* w, std::int64_t stride_n, std::int64_t stride_k, std::int64_t n, std::int64_t k,
                    std::int32_t a_zero, std::int32_t w_zero, const std::int32_t* bias_in, std::int32_t* bias);

// row_term[i] = -w_zero * (sum over k of a[i][k]), modulo 2^32. Weights stored as u8 are packed as w - 128, and so is
// their zero point.
void gemm_row_terms(const void* a, std::int64_t lda, bool a_signed, std::int64_t m, std::int64_t k, std::int32_t w_zero,
                    std::int32_t* row_term);

// a_scale * w_scale / out_scale in the order and precision of ONNX Runtime; w_scale has one entry per output, or one.
void gemm_requantize_scales(float a_scale, const float* w_scale, bool per_channel, float out_scale, std::int64_t n,
                            float* scale);

extern const GemmKernel gemm_u8s8s32_portable;
extern const GemmKernel gemm_u8s8s32_4x24x2_avx2;
extern const GemmKernel gemm_u8s8s32_4x24x4_avxvnni;
extern const GemmKernel gemm_u8s8s32_4x24x4_avx512vlvnni;
extern const GemmKernel gemm_u8s8s32_6x64x4_avx512vnni;
extern const GemmKernel gemm_u8s8s32_4x16x1_neon;
extern const GemmKernel gemm_u8s8s32_4x16x4_neondot;
extern const GemmKernel gemm_u8s8s32_4x16x8_neoni8mm;

}  // namespace nas
