// Byte tables with AVX512-VBMI: two permutations of 128 entries each.
#include <immintrin.h>

#include "bytes.h"

namespace nas {
namespace {

void table(const std::uint8_t* in, std::uint8_t* out, std::size_t n, const std::uint8_t* entries) {
  __m512i parts[4];
  for (int part = 0; part < 4; ++part) parts[part] = _mm512_loadu_si512(entries + 64 * part);
  for (std::size_t i = 0; i < n; i += 64) {
    const __mmask64 mask = n - i >= 64 ? ~0ULL : (1ULL << (n - i)) - 1;
    const __m512i bytes = _mm512_maskz_loadu_epi8(mask, in + i);
    const __m512i low = _mm512_permutex2var_epi8(parts[0], bytes, parts[1]);
    const __m512i high = _mm512_permutex2var_epi8(parts[2], bytes, parts[3]);
    _mm512_mask_storeu_epi8(out + i, mask, _mm512_mask_blend_epi8(_mm512_movepi8_mask(bytes), low, high));
  }
}

}  // namespace

void table_avx512vbmi(const std::uint8_t* in, std::uint8_t* out, std::size_t n, const std::uint8_t* entries) {
  table(in, out, n, entries);
}

}  // namespace nas
