#include <algorithm>

#include "nas/peaks.h"

namespace nas {

std::int64_t dot_u8s8(const Int8Kernel& kernel, const std::uint8_t* a, const std::int8_t* b, std::size_t n) {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < n; i += kDotChunk) sum += kernel.dot(a + i, b + i, std::min(kDotChunk, n - i));
  return sum;
}

}  // namespace nas
