// conv_u8s8 with AVX2: exact products of 16-bit pairs, since vpmaddubsw saturates.
#include "ymm.h"

namespace nas {
namespace {

struct Avx2 : YmmConv {
  using Element = std::int16_t;
  using Weight = std::int16_t;
  static constexpr int kGroup = 2, kRows = 5;

  template <int NV>
  static void mac(Sum* sums, const Element* group, const Weight* weights) {
    std::int32_t pair;
    std::memcpy(&pair, group, 4);
    const __m256i pixel = _mm256_set1_epi32(pair);
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      const __m256i column = _mm256_load_si256(reinterpret_cast<const __m256i*>(weights + 16 * v));
      sums[v] = _mm256_add_epi32(sums[v], _mm256_madd_epi16(pixel, column));
    }
  }
};

}  // namespace

ConvU8* conv_u8_avx2(const ConvU8Params& params) {
  if (params.shape.groups != 1 || !sums_fit(params)) return nullptr;
  return new BodyConv<Avx2>(params, params.float_out ? "conv_u8s8f32_5x16_avx2" : "conv_u8s8u8_5x16_avx2");
}

}  // namespace nas
