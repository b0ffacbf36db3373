// Largest byte of each window with AVX-512, 64 channels at a time.
#include <immintrin.h>

#include "pool.h"

namespace nas {

void max_u8_avx512(const PoolShape& s, const std::uint8_t* in, std::uint8_t* out) {
  out += s.first_line * s.out_width * s.channels;
  for (std::int64_t y = s.first_line; y < s.end_line; ++y) {
    const std::int64_t first_row = y * s.stride_h - s.pad_top, end_row = first_row + s.kernel_h;
    const std::int64_t top = first_row > 0 ? first_row : 0, bottom = end_row < s.height ? end_row : s.height;
    for (std::int64_t x = 0; x < s.out_width; ++x, out += s.channels) {
      const std::int64_t first = x * s.stride_w - s.pad_left, end = first + s.kernel_w;
      const std::int64_t left = first > 0 ? first : 0, right = end < s.width ? end : s.width;
      for (std::int64_t c = 0; c < s.channels; c += 64) {
        const __mmask64 mask = s.channels - c >= 64 ? ~0ULL : (1ULL << (s.channels - c)) - 1;
        __m512i largest = _mm512_setzero_si512();
        for (std::int64_t row = top; row < bottom; ++row) {
          const std::uint8_t* pixel = in + (row * s.width + left) * s.channels + c;
          for (std::int64_t column = left; column < right; ++column, pixel += s.channels) {
            largest = _mm512_max_epu8(largest, _mm512_maskz_loadu_epi8(mask, pixel));
          }
        }
        _mm512_mask_storeu_epi8(out + c, mask, largest);
      }
    }
  }
}

}  // namespace nas
