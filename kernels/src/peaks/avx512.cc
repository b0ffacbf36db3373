#include <immintrin.h>

#include "nas/peaks.h"
#include "opaque.h"

namespace nas {
namespace {

double fma_burst(std::int64_t iterations) {
  const __m512 ones = _mm512_set1_ps(1.0F);
  __m512 sums[12] = {};
#pragma GCC unroll 12
  for (__m512& sum : sums) sum = opaque(sum);
  for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(ones, ones, sum);
  }
  double total = 0.0;
  for (const __m512& sum : sums) {
    for (int lane = 0; lane < 16; ++lane) total += static_cast<double>(sum[lane]);
  }
  return total;
}

}  // namespace

const Fp32Kernel fma_f32_12x16_avx512 = {"avx512", 12 * 16, fma_burst};

}  // namespace nas
