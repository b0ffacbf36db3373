// maddubs is exact here: weights have 4 bits, so a pair of products is 2 * 15 * 127 at most, and 16 bits hold the sum of 8.
#include "ymm.h"

namespace nas {
namespace {

struct Avx2 : Ymm {
  struct Partial {
    __m256i pairs, sums;
  };
  static constexpr std::int64_t kBlock = 32;

  static void add(Partial& partial, const Nibbles& w, const std::int8_t* eight) {
    const __m256i low = _mm256_maddubs_epi16(w.low, _mm256_set1_epi32(four_bytes(eight)));
    const __m256i high = _mm256_maddubs_epi16(w.high, _mm256_set1_epi32(four_bytes(eight + 4)));
    partial.pairs = _mm256_add_epi16(partial.pairs, _mm256_add_epi16(low, high));
  }
  static void fold(Partial& partial) {
    partial.sums = _mm256_add_epi32(partial.sums, _mm256_madd_epi16(partial.pairs, _mm256_set1_epi16(1)));
    partial.pairs = _mm256_setzero_si256();
  }
  static Sums total(const Partial& partial) { return reinterpret_cast<Sums>(partial.sums); }
};

}  // namespace

extern const Int4Kernel int4_avx2;
const Int4Kernel int4_avx2 = {Level::avx2, "int4_f32_1x32x8_avx2", int4_run<Avx2>};

}  // namespace nas
