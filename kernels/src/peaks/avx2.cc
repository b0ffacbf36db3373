#include <immintrin.h>

#include "dot_tail.h"
#include "nas/peaks.h"
#include "opaque.h"

namespace nas {
namespace {

std::int32_t sum_lanes(__m256i v) {
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
  return _mm_cvtsi128_si32(sum);
}

double fma_burst(std::int64_t iterations) {
  const __m256 ones = _mm256_set1_ps(1.0F);
  __m256 sums[12] = {};
#pragma GCC unroll 12
  for (__m256& sum : sums) sum = opaque(sum);
  for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(ones, ones, sum);
  }
  double total = 0.0;
  for (const __m256& sum : sums) {
    for (int lane = 0; lane < 8; ++lane) total += static_cast<double>(sum[lane]);
  }
  return total;
}

// u8 * s8, summed over neighbours to 16 bits and over four to 32. The 16-bit sum saturates beyond 32767, so one of the
// operands must stay within 7 bits: what a runtime without VNNI asks of its weights.
__m256i mac(__m256i sum, __m256i u7, __m256i s8) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(u7, s8), _mm256_set1_epi16(1)));
}

std::uint32_t dot_burst(std::int64_t iterations) {
  __m256i a = _mm256_set1_epi8(static_cast<char>(kBurstU8));
  const __m256i b = _mm256_set1_epi8(kBurstS8);
  __m256i sums[8] = {};
#pragma GCC unroll 8
  for (__m256i& sum : sums) sum = opaque(sum);
  for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 8
    for (__m256i& sum : sums) {
      a = opaque(a);
      sum = mac(sum, a, b);
    }
  }
  std::uint32_t total = 0;
  for (const __m256i& sum : sums) total += static_cast<std::uint32_t>(sum_lanes(sum));
  return total;
}

// Exact for all of u8: the low seven bits and the top bit are multiplied apart, at half the peak's rate.
std::int32_t dot(const std::uint8_t* a, const std::int8_t* b, std::size_t n) {
  const __m256i low_bits = _mm256_set1_epi8(0x7f);
  __m256i sum = _mm256_setzero_si256();
  std::size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i u8 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + i));
    const __m256i s8 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + i));
    sum = mac(sum, _mm256_and_si256(u8, low_bits), s8);
    sum = mac(sum, _mm256_andnot_si256(low_bits, u8), s8);
  }
  return sum_lanes(sum) + dot_tail(a, b, i, n);
}

}  // namespace

const Fp32Kernel fma_f32_12x8_avx2 = {"avx2", 12 * 8, fma_burst};
const Int8Kernel dot_u8s8s32_8x32_avx2 = {"avx2", 8 * 32, dot_burst, dot};

}  // namespace nas
