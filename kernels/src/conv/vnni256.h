// Four products of bytes per lane and instruction, exact.
#pragma once

#include "../vnni256.h"
#include "ymm.h"

namespace nas {
namespace {

struct Vnni256 : YmmConv {
  using Element = std::uint8_t;
  using Weight = std::int8_t;
  static constexpr int kGroup = 4, kRows = 6;

  template <int NV>
  static void mac(Sum* sums, const Element* group, const Weight* weights) {
    std::int32_t four;
    std::memcpy(&four, group, 4);
    const __m256i pixel = _mm256_set1_epi32(four);
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      sums[v] = dot256(sums[v], pixel, _mm256_load_si256(reinterpret_cast<const __m256i*>(weights + 32 * v)));
    }
  }
};

}  // namespace
}  // namespace nas
