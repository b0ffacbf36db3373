// Normalisation of rows: layer norm, RMS norm and softmax, from and to float or 8 bits. Sums run in one order on every level,
// so that all give the same bits; against ONNX Runtime, which sums in another, they differ by rounding.
#pragma once

#include <cstdint>

#include "nas/elementwise.h"
#include "nas/level.h"

namespace nas {

enum class Type { f32, u8, s8 };

// A matrix of `rows` rows; row i starts at element i * stride. `quantization` counts for u8 and s8.
struct Input {
  const void* data = nullptr;
  std::int64_t stride = 0;
  Type type = Type::f32;
  Quantization quantization;
};

struct Output {
  void* data = nullptr;
  std::int64_t stride = 0;
  Type type = Type::f32;
  Quantization quantization;
};

// y = (v - mean(v)) / sqrt(variance(v) + epsilon) * gamma + beta for v = x + residual, or with `rms` y = v / sqrt(mean(v^2)
// + epsilon) * gamma + beta. A null residual, gamma or beta is left out; `sum`, where given, receives v (row stride
// sum_stride; it may be the residual). y is rounded to 8 bits as QuantizeLinear does.
struct NormArgs {
  std::int64_t rows = 0;
  std::int64_t width = 0;
  Input x;
  const float* residual = nullptr;
  std::int64_t residual_stride = 0;
  float* sum = nullptr;
  std::int64_t sum_stride = 0;
  const float* gamma = nullptr;
  const float* beta = nullptr;
  float epsilon = 1e-5F;
  bool rms = false;
  Output y;
  float* scratch = nullptr;  // width floats
};

// y = exp(s - max(s)) / sum(exp(s - max(s))) for s = scale * x. With `visible`, only the first visible[i] columns of row i
// count (causal attention) and the others become 0.
struct SoftmaxArgs {
  std::int64_t rows = 0;
  std::int64_t width = 0;
  float scale = 1.0F;
  const std::int64_t* visible = nullptr;
  Input x;
  Output y;
  float* scratch = nullptr;  // width floats
};

struct NormKernels {
  Level level;
  void (*norm)(const NormArgs& args);
  void (*softmax)(const SoftmaxArgs& args);
  // y[i] = x[i] / 2 * (1 + erf(x[i] / sqrt(2))), at most 4e-6 * max(1, |x|) off; y may be x.
  void (*gelu)(const float* x, std::int64_t count, float* y);
  // y[i] = x[i] / (1 + exp(-x[i])), at most 3e-7 * max(1, |x|) off; y may be x.
  void (*silu)(const float* x, std::int64_t count, float* y);
};

const NormKernels& norm_kernels(Level level);

}  // namespace nas
