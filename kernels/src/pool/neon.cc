// Largest byte of each window with NEON, 16 channels at a time.
#include <arm_neon.h>

#include <cstring>

#include "pool.h"

namespace nas {

void max_u8_neon(const PoolShape& s, const std::uint8_t* in, std::uint8_t* out) {
  out += s.first_line * s.out_width * s.channels;
  for (std::int64_t y = s.first_line; y < s.end_line; ++y) {
    const std::int64_t first_row = y * s.stride_h - s.pad_top, end_row = first_row + s.kernel_h;
    const std::int64_t top = first_row > 0 ? first_row : 0, bottom = end_row < s.height ? end_row : s.height;
    for (std::int64_t x = 0; x < s.out_width; ++x, out += s.channels) {
      const std::int64_t first = x * s.stride_w - s.pad_left, end = first + s.kernel_w;
      const std::int64_t left = first > 0 ? first : 0, right = end < s.width ? end : s.width;
      for (std::int64_t c = 0; c < s.channels; c += 16) {
        const std::size_t count = s.channels - c < 16 ? std::size_t(s.channels - c) : 16;
        uint8x16_t largest = vdupq_n_u8(0);
        for (std::int64_t row = top; row < bottom; ++row) {
          const std::uint8_t* pixel = in + (row * s.width + left) * s.channels + c;
          // Bytes behind the channels are read and not written: the arena ends in a guard.
          for (std::int64_t column = left; column < right; ++column, pixel += s.channels) {
            largest = vmaxq_u8(largest, vld1q_u8(pixel));
          }
        }
        if (count == 16) {
          vst1q_u8(out + c, largest);
        } else {
          std::uint8_t kept[16];
          vst1q_u8(kept, largest);
          std::memcpy(out + c, kept, count);
        }
      }
    }
  }
}

}  // namespace nas
