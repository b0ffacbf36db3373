// Four taps of the window to a product of bytes.
#pragma once

#include "../vnni256.h"
#include "ymm.h"

namespace nas {
namespace {

struct Quads {
  using Weight = std::int8_t;
  static constexpr int kBlock = 32, kTaps = 4;

  // Unpacking works within lanes of 16 channels: vector v has 4 of each lane, as packing the sums wants them.
  static int place(int channel) { return channel % 16 / 4 * 8 + channel / 16 * 4 + channel % 4; }

  static void multiply(const std::uint8_t* const* taps, const Weight* weights, __m256i* sums) {
    __m256i tap[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) tap[k] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(taps[k]));
    const __m256i left[2] = {_mm256_unpacklo_epi8(tap[0], tap[1]), _mm256_unpackhi_epi8(tap[0], tap[1])};
    const __m256i right[2] = {_mm256_unpacklo_epi8(tap[2], tap[3]), _mm256_unpackhi_epi8(tap[2], tap[3])};
    const __m256i* w = reinterpret_cast<const __m256i*>(weights);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      sums[2 * half] = dot256(sums[2 * half], _mm256_unpacklo_epi16(left[half], right[half]), _mm256_load_si256(w + 2 * half));
      sums[2 * half + 1] =
          dot256(sums[2 * half + 1], _mm256_unpackhi_epi16(left[half], right[half]), _mm256_load_si256(w + 2 * half + 1));
    }
  }
  static void store(const __m256i* scaled, __m256i zero, std::uint8_t* out) {
    const __m256i low = _mm256_adds_epi16(_mm256_packs_epi32(scaled[0], scaled[1]), zero);
    const __m256i high = _mm256_adds_epi16(_mm256_packs_epi32(scaled[2], scaled[3]), zero);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_packus_epi16(low, high));
  }
};

}  // namespace
}  // namespace nas
