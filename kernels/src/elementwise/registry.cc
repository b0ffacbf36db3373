// Which kernels a level runs, and what is computed once per model only.
#include <algorithm>
#include <cmath>

#include "nas/elementwise.h"
#include "nas/functions.h"

namespace nas {

extern const ElementwiseKernels elementwise_portable;
#if defined(__x86_64__)
extern const ElementwiseKernels elementwise_avx2, elementwise_avx512, elementwise_avx512_vbmi;
#elif defined(__aarch64__)
extern const ElementwiseKernels elementwise_neon;
#endif

const ElementwiseKernels& elementwise_kernels(Level level) {
  switch (level) {
#if defined(__x86_64__)
    case Level::avx2:
    case Level::avx_vnni:
    case Level::avx512vl_vnni:
      return elementwise_avx2;
    case Level::avx512:
      return elementwise_avx512;
    case Level::avx512_vnni:
      return cpu_features().avx512vbmi ? elementwise_avx512_vbmi : elementwise_avx512;
#elif defined(__aarch64__)
    case Level::neon:
    case Level::neondot:
    case Level::neoni8mm:
      return elementwise_neon;
#endif
    default:
      return elementwise_portable;
  }
}

Quantization dynamic_quantization(float low, float high) {
  const float scale = high == low ? 1.0F : (high - low) / 255.0F;
  const float zero = std::nearbyint(std::max(0.0F, std::min(255.0F, (0.0F - low) / scale)));
  return {scale, static_cast<std::int32_t>(zero), false};
}

namespace {

double apply(Function function, double x, double alpha, double beta) {
  constexpr double kSqrtHalf = 0.70710678118654752440;
  constexpr double kSqrtTwoOverPi = 0.79788456080286535588;
  switch (function) {
    case Function::identity:
      return x;
    case Function::relu:
      return std::max(x, 0.0);
    case Function::leaky_relu:
      return x < 0.0 ? alpha * x : x;
    case Function::clip:
      return std::min(std::max(x, alpha), beta);
    case Function::sigmoid:
      return 1.0 / (1.0 + real::exp(-x));
    case Function::hard_sigmoid:
      return std::max(0.0, std::min(1.0, alpha * x + beta));
    case Function::hard_swish:
      return x * std::max(0.0, std::min(1.0, x / 6.0 + 0.5));
    case Function::silu:
      return x / (1.0 + real::exp(-x));
    case Function::tanh:
      return real::tanh(x);
    case Function::erf:
      return real::erf(x);
    case Function::elu:
      return x < 0.0 ? alpha * real::expm1(x) : x;
    case Function::gelu:
      return 0.5 * x * (1.0 + real::erf(x * kSqrtHalf));
    case Function::gelu_tanh:
      return 0.5 * x * (1.0 + real::tanh(kSqrtTwoOverPi * (x + 0.044715 * x * x * x)));
    case Function::exp:
      return real::exp(x);
    case Function::sqrt:
      return x < 0.0 ? 0.0 : std::sqrt(x);
    case Function::square:
      return x * x;
  }
  return x;
}

}  // namespace

void fill_table(Function function, float alpha, float beta, const Quantization& from, const Quantization& to,
                std::uint8_t* table) {
  const float low = static_cast<float>((to.is_signed ? -128 : 0) - to.zero_point);
  const float high = static_cast<float>((to.is_signed ? 127 : 255) - to.zero_point);
  for (int bits = 0; bits < 256; ++bits) {
    const std::int32_t byte = from.is_signed ? static_cast<std::int8_t>(bits) : bits;
    const float x = static_cast<float>(byte - from.zero_point) * from.scale;
    const float y = static_cast<float>(apply(function, x, alpha, beta)) / to.scale;
    const float q = std::nearbyint(std::min(std::max(y, low), high));
    table[bits] = static_cast<std::uint8_t>(static_cast<std::int32_t>(q) + to.zero_point);
  }
}

}  // namespace nas
