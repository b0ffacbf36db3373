// 4 rows by up to 24 columns in 16-bit products. maddubs, which multiplies bytes, would saturate: a pair of u8 x s8 products
// needs 17 bits. Weights stay bytes in memory and are widened as they are loaded, once for four rows.
#include "ymm.h"

namespace nas {
namespace {

// Activations are widened in pieces of so many k.
constexpr int64_t kPiece = 512;

// `count` values of one row as 16 bits, and a zero after an odd number.
void widen(const uint8_t* a, bool is_signed, int64_t count, std::int16_t* out) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a + i));
    const __m256i wide = is_signed ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), wide);
  }
  for (; i < count; ++i) out[i] = is_signed ? static_cast<int8_t>(a[i]) : a[i];
  if (count % 2 != 0) out[count] = 0;
}

struct Pairs {
  static constexpr int64_t kStep = 2;
  static constexpr int32_t kFlip = 0;

  template <int Rows, int Width>
  static void tile(const GemmArgs& args, const uint8_t* a, const int8_t* b, __m256i (&sums)[Rows][Width]) {
    alignas(32) std::int16_t values[Rows][kPiece + 16];
    for (int64_t piece = 0; piece < args.k; piece += kPiece) {
      const int64_t count = args.k - piece < kPiece ? args.k - piece : kPiece;
      for (int r = 0; r < Rows; ++r) widen(a + r * args.lda + piece, args.a_signed, count, values[r]);
      for (int64_t k = 0; k < count; k += 2, b += 16 * Width) {
        __m256i weights[Width];
#pragma GCC unroll 3
        for (int v = 0; v < Width; ++v) {
          weights[v] = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + 16 * v)));
        }
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) {
          int32_t pair;
          std::memcpy(&pair, values[r] + k, 4);
          const __m256i both = _mm256_set1_epi32(pair);
#pragma GCC unroll 3
          for (int v = 0; v < Width; ++v) sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(weights[v], both));
        }
      }
    }
  }
};

}  // namespace

const GemmKernel gemm_u8s8s32_4x24x2_avx2 = {Level::avx2, "gemm_u8s8s32_4x24x2_avx2", packed_bytes<Pairs>, pack<Pairs>,
                                             run<Pairs>};

}  // namespace nas
