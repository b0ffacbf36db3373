// 4 rows by up to 24 columns, four products per lane and instruction, which takes unsigned activations: signed ones are flipped.
#pragma once

#include "../vnni256.h"
#include "ymm.h"

namespace nas {
namespace {

struct Quads {
  static constexpr int64_t kStep = 4;
  static constexpr int32_t kFlip = 128;

  template <int Rows, int Width>
  static void multiply(const uint8_t* a, int64_t lda, __m256i flip, const int8_t* b, __m256i (&sums)[Rows][Width]) {
    __m256i weights[Width];
#pragma GCC unroll 3
    for (int v = 0; v < Width; ++v) weights[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32 * v));
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      int32_t four;
      std::memcpy(&four, a + r * lda, 4);
      const __m256i values = _mm256_xor_si256(_mm256_set1_epi32(four), flip);
#pragma GCC unroll 3
      for (int v = 0; v < Width; ++v) sums[r][v] = dot256(sums[r][v], values, weights[v]);
    }
  }

  template <int Rows, int Width>
  static void tile(const GemmArgs& args, const uint8_t* a, const int8_t* b, __m256i (&sums)[Rows][Width]) {
    const __m256i flip = args.a_signed ? _mm256_set1_epi8(-128) : _mm256_setzero_si256();
    int64_t k = 0;
    for (; k + 4 <= args.k; k += 4, b += 32 * Width) multiply<Rows, Width>(a + k, args.lda, flip, b, sums);
    if (k == args.k) return;
    // Whatever is behind the last value meets weights of 0.
    uint8_t last[Rows][4] = {};
    for (int r = 0; r < Rows; ++r) std::memcpy(last[r], a + r * args.lda + k, static_cast<std::size_t>(args.k - k));
    multiply<Rows, Width>(last[0], 4, flip, b, sums);
  }
};

}  // namespace
}  // namespace nas
