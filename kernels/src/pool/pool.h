// Pooling of channels-last maps of bytes.
#pragma once

#include <cstdint>

namespace nas {

// Some output lines of one image; every window holds a pixel that is no padding.
struct PoolShape {
  std::int64_t height, width, channels, first_line, end_line, out_width;
  std::int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
};

void max_u8_avx512(const PoolShape& shape, const std::uint8_t* in, std::uint8_t* out);
void max_u8_neon(const PoolShape& shape, const std::uint8_t* in, std::uint8_t* out);

}  // namespace nas
