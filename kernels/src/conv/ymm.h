// What dense convolutions on vectors of 256 bits share: 16 sums, and what becomes of them.
#pragma once

#include <immintrin.h>

#include "body.h"

namespace nas {
namespace {

struct YmmConv {
  using Sum = __m256i;
  static constexpr int kLanes = 8, kVectors = 2, kShift = 0;

  static Sum load(const std::int32_t* from) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(from)); }

  static __m256i scaled(Sum sum, const float* multiplier) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_load_ps(multiplier)));
  }

  static void store(std::uint8_t* out, const Sum* sums, const float* multiplier, int zero) {
    const __m256i both = _mm256_packs_epi32(scaled(sums[0], multiplier), scaled(sums[1], multiplier + 8));
    const __m256i shifted = _mm256_adds_epi16(both, _mm256_set1_epi16(short(zero)));
    // Packing worked within lanes: 0-3 8-11 | 4-7 12-15.
    const __m256i ordered = _mm256_permute4x64_epi64(shifted, 0xD8);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
  }

  static void store(float* out, const Sum* sums, const float* multiplier) {
    for (int v = 0; v < 2; ++v) {
      _mm256_storeu_ps(out + 8 * v, _mm256_mul_ps(_mm256_cvtepi32_ps(sums[v]), _mm256_load_ps(multiplier + 8 * v)));
    }
  }
};

}  // namespace
}  // namespace nas
