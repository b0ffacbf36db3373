// One row by 32 columns or two by 16 in vectors of 256 bits.
#pragma once

#include "../vnni256.h"
#include "ymm.h"

namespace nas {
namespace {

struct Vnni256 : Ymm {
  // Two sums per vector: one would have the latency of each instruction in its way.
  struct Partial {
    __m256i low, high;
  };
  static constexpr std::int64_t kBlock = 1 << 20;

  static void add(Partial& sums, const Nibbles& w, const std::int8_t* eight) {
    sums.low = dot256(sums.low, w.low, _mm256_set1_epi32(four_bytes(eight)));
    sums.high = dot256(sums.high, w.high, _mm256_set1_epi32(four_bytes(eight + 4)));
  }
  static void fold(Partial&) {}
  static Sums total(const Partial& sums) { return reinterpret_cast<Sums>(_mm256_add_epi32(sums.low, sums.high)); }
};

}  // namespace
}  // namespace nas
