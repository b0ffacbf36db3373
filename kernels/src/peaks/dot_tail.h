// What is left of a dot product after the last whole vector.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nas {

// static, not inline: files of different ISA include this, and an inline function would be merged into one copy, which
// may be the one that needs AVX-512.
static std::int32_t dot_tail(const std::uint8_t* a, const std::int8_t* b, std::size_t from, std::size_t n) {
  std::int32_t sum = 0;
  for (std::size_t i = from; i < n; ++i) sum += static_cast<std::int32_t>(a[i]) * b[i];
  return sum;
}

}  // namespace nas
