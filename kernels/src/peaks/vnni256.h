// Bursts of dot products on vectors of 256 bits, for both of their encodings.
#pragma once

#include "../vnni256.h"
#include "dot_tail.h"
#include "nas/peaks.h"
#include "opaque.h"

namespace nas {
namespace {

std::uint32_t sum_lanes(__m256i v) {
  std::uint32_t lanes[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), v);
  std::uint32_t total = 0;
  for (const std::uint32_t lane : lanes) total += lane;
  return total;
}

std::uint32_t dot_burst(std::int64_t iterations) {
  const __m256i a = _mm256_set1_epi8(static_cast<char>(kBurstU8));
  const __m256i b = _mm256_set1_epi8(kBurstS8);
  __m256i sums[12] = {};
#pragma GCC unroll 12
  for (__m256i& sum : sums) sum = opaque(sum);
  for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (__m256i& sum : sums) sum = dot256(sum, a, b);
  }
  std::uint32_t total = 0;
  for (const __m256i& sum : sums) total += sum_lanes(sum);
  return total;
}

std::int32_t dot(const std::uint8_t* a, const std::int8_t* b, std::size_t n) {
  __m256i sum = _mm256_setzero_si256();
  std::size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    sum = dot256(sum, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + i)),
                 _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + i)));
  }
  return static_cast<std::int32_t>(sum_lanes(sum)) + dot_tail(a, b, i, n);
}

}  // namespace
}  // namespace nas
