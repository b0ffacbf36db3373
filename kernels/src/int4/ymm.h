// What the kernels with vectors of 256 bits share.
#pragma once

#include "body.h"

namespace nas {
namespace {

struct Ymm {
  using Sums = std::int32_t __attribute__((vector_size(32)));
  using Reals = float __attribute__((vector_size(32)));
  struct Nibbles {
    __m256i low, high;
  };
  static constexpr std::int64_t kLanes = 8;
  // Of 16 registers, half hold sums.
  static constexpr int vectors(int rows) { return 4 / rows; }

  static Nibbles nibbles(const std::uint8_t* bytes) {
    const __m256i lower = _mm256_set1_epi8(15), both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
    return {_mm256_and_si256(both, lower), _mm256_and_si256(_mm256_srli_epi16(both, 4), lower)};
  }
  static Reals fused(Reals a, Reals b, Reals c) {
    return reinterpret_cast<Reals>(
        _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
  }
};

}  // namespace
}  // namespace nas
