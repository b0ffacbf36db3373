// Depthwise convolution with AVX2: two taps of the window to a product of 16-bit pairs.
#include "ymm.h"

namespace nas {
namespace {

struct Pairs {
  using Weight = std::int16_t;
  static constexpr int kBlock = 16, kTaps = 2;

  // Unpacking works within lanes of 8 channels: the first vector of sums has channels 0-3 and 8-11.
  static int place(int channel) { return (channel & 4 ? 8 : 0) + (channel & 8 ? 4 : 0) + (channel & 3); }

  static __m256i wide(const std::uint8_t* tap) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(tap)));
  }
  static void multiply(const std::uint8_t* const* taps, const Weight* weights, __m256i* sums) {
    const __m256i first = wide(taps[0]), second = wide(taps[1]);
    const __m256i* w = reinterpret_cast<const __m256i*>(weights);
    sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(_mm256_unpacklo_epi16(first, second), _mm256_load_si256(w)));
    sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(_mm256_unpackhi_epi16(first, second), _mm256_load_si256(w + 1)));
  }
  static void store(const __m256i* scaled, __m256i zero, std::uint8_t* out) {
    const __m256i shifted = _mm256_adds_epi16(_mm256_packs_epi32(scaled[0], scaled[1]), zero);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(shifted), _mm256_extracti128_si256(shifted, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
  }
};

}  // namespace

ConvU8* depthwise_u8_avx2(const ConvU8Params& params) {
  if (!params.shape.depthwise() || params.float_out || !sums_fit(params)) return nullptr;
  return new YmmDepthwise<Pairs>(params, "depthwise_u8s8u8_1x16_avx2");
}

}  // namespace nas
