// Requantization of vectors of sums, equal to requantize.h where sums_fit (conv/packed.h) holds.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace nas {
namespace {

// gcc 12 spills the accumulators of _mm512_dpbusd_epi32 to the stack; one line of assembly keeps them.
inline __m512i dot(__m512i sum, __m512i u8, __m512i s8) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
  return sum;
}

inline __m512i scaled(__m512i sums, const float* multiplier) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_load_ps(multiplier)));
}

inline __mmask64 first_bytes(int count) { return count >= 64 ? ~0ULL : (1ULL << count) - 1; }

// Sums in the order of output_in_panel to bytes in their natural order; saturation happens in packing.
template <int NV>
inline void store_bytes(std::uint8_t* out, const __m512i* sums, const float* multiplier, __m512i zero, int columns) {
  if constexpr (NV == 4) {
    const __m512i low = _mm512_packs_epi32(scaled(sums[0], multiplier), scaled(sums[1], multiplier + 16));
    const __m512i high = _mm512_packs_epi32(scaled(sums[2], multiplier + 32), scaled(sums[3], multiplier + 48));
    const __m512i bytes = _mm512_packus_epi16(_mm512_adds_epi16(low, zero), _mm512_adds_epi16(high, zero));
    if (columns >= 64) {
      _mm512_storeu_si512(out, bytes);
    } else {
      _mm512_mask_storeu_epi8(out, first_bytes(columns), bytes);
    }
  } else if constexpr (NV == 2) {
    const __m512i both = _mm512_packs_epi32(scaled(sums[0], multiplier), scaled(sums[1], multiplier + 16));
    const __m512i shifted = _mm512_adds_epi16(both, zero);
    const __m512i packed = _mm512_packus_epi16(shifted, shifted);
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 0, 2, 4, 6);
    const __m256i bytes = _mm512_castsi512_si256(_mm512_permutexvar_epi64(order, packed));
    if (columns >= 32) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), bytes);
    } else {
      _mm256_mask_storeu_epi8(out, (1U << columns) - 1, bytes);
    }
  } else if constexpr (NV == 3) {
    const __m512i low = _mm512_packs_epi32(scaled(sums[0], multiplier), scaled(sums[1], multiplier + 16));
    const __m512i last = scaled(sums[2], multiplier + 32);
    const __m512i high = _mm512_packs_epi32(last, last);
    const __m512i packed = _mm512_packus_epi16(_mm512_adds_epi16(low, zero), _mm512_adds_epi16(high, zero));
    // Each lane holds 12 bytes and 4 of the last vector once more.
    const __m512i order = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 0, 0, 0, 0);
    _mm512_mask_storeu_epi8(out, first_bytes(columns < 48 ? columns : 48), _mm512_permutexvar_epi32(order, packed));
  } else {
    const __m512i wide_zero = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(zero));
#pragma GCC unroll 3
    for (int v = 0; v < NV; ++v) {
      const __m512i value = _mm512_add_epi32(scaled(sums[v], multiplier + 16 * v), wide_zero);
      const __m128i bytes = _mm512_cvtusepi32_epi8(_mm512_max_epi32(value, _mm512_setzero_si512()));
      const int left = columns - 16 * v;
      if (left >= 16) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * v), bytes);
      } else if (left > 0) {
        _mm_mask_storeu_epi8(out + 16 * v, static_cast<__mmask16>((1U << left) - 1), bytes);
      }
    }
  }
}

// Four vectors of 16 sums in natural order to four runs of up to 16 bytes, `step` bytes apart.
inline void store_four(std::uint8_t* out, std::ptrdiff_t step, const __m512i* sums, const float* multiplier,
                       __m512i zero, int columns) {
  const __m512i low = _mm512_packs_epi32(scaled(sums[0], multiplier), scaled(sums[1], multiplier));
  const __m512i high = _mm512_packs_epi32(scaled(sums[2], multiplier), scaled(sums[3], multiplier));
  const __m512i packed = _mm512_packus_epi16(_mm512_adds_epi16(low, zero), _mm512_adds_epi16(high, zero));
  // Packing interleaves the four within lanes; afterwards each has its 16 bytes in one lane.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = _mm512_permutexvar_epi32(order, packed);
  const __m128i runs[4] = {_mm512_castsi512_si128(bytes), _mm512_extracti32x4_epi32(bytes, 1),
                           _mm512_extracti32x4_epi32(bytes, 2), _mm512_extracti32x4_epi32(bytes, 3)};
  if (columns >= 16) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i * step), runs[i]);
  } else {
    const __mmask16 mask = static_cast<__mmask16>((1U << columns) - 1);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) _mm_mask_storeu_epi8(out + i * step, mask, runs[i]);
  }
}

template <int NV>
inline void store_floats(float* out, const __m512i* sums, const float* multiplier, int columns) {
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    const int left = columns - 16 * v;
    if (left <= 0) return;
    const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), _mm512_load_ps(multiplier + 16 * v));
    _mm512_mask_storeu_ps(out + 16 * v, left >= 16 ? 0xFFFF : static_cast<__mmask16>((1U << left) - 1), value);
  }
}

}  // namespace
}  // namespace nas
