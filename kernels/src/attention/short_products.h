// Sums of products of 16 bits for blocks of queries, exact in 32 bits, with the registers of each instruction set.
#pragma once

#include "shared.h"

namespace {

using nas::kShortQueries;

#if defined(__AVX2__)
inline std::int32_t pair_at(const std::int16_t* p) {
  std::int32_t pair;
  std::memcpy(&pair, p, sizeof pair);
  return pair;
}
#endif

// A register of sums; how many neighbours of the index that is summed over lie side by side for it; and how many of these
// groups of factors are read at once.
#if defined(__AVX512BW__)
using Sums = __m512i;
using Factors = __m512i;
constexpr std::int64_t kTogether = 2, kSteps = 1;
constexpr int kSumsWide = 2;  // vectors of 16 per query
inline Factors factors_from(const std::int16_t* p) { return _mm512_set1_epi32(pair_at(p)); }
inline Sums added(Sums sums, Factors pair, int, const std::int16_t* row) {
  const Sums values = _mm512_loadu_si512(row);
#if defined(__AVX512VNNI__)
  // Assembly, since gcc 12 copies each register of _mm512_dpwssd_epi32 before and behind.
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(pair), "v"(values));
  return sums;
#else
  return _mm512_add_epi32(sums, _mm512_madd_epi16(values, pair));
#endif
}
#elif defined(__AVX2__)
using Sums = __m256i;
using Factors = __m256i;
constexpr std::int64_t kTogether = 2, kSteps = 1;
constexpr int kSumsWide = 1;
inline Factors factors_from(const std::int16_t* p) { return _mm256_set1_epi32(pair_at(p)); }
inline Sums added(Sums sums, Factors pair, int, const std::int16_t* row) {
  const Sums values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row));
  return _mm256_add_epi32(sums, _mm256_madd_epi16(values, pair));
}
#elif defined(__aarch64__)
using Sums = int32x4_t;
using Factors = int16x4_t;
constexpr std::int64_t kTogether = 1, kSteps = 4;
constexpr int kSumsWide = 1;
inline Factors factors_from(const std::int16_t* p) { return vld1_s16(p); }
[[gnu::always_inline]] inline Sums added(Sums sums, Factors four, int step, const std::int16_t* row) {
  switch (step) {
    case 0:
      return vmlal_lane_s16(sums, vld1_s16(row), four, 0);
    case 1:
      return vmlal_lane_s16(sums, vld1_s16(row), four, 1);
    case 2:
      return vmlal_lane_s16(sums, vld1_s16(row), four, 2);
    default:
      return vmlal_lane_s16(sums, vld1_s16(row), four, 3);
  }
}
#else
using Sums = std::int32_t;
using Factors = std::int32_t;
constexpr std::int64_t kTogether = 1, kSteps = 1;
constexpr int kSumsWide = 1;
inline Factors factors_from(const std::int16_t* p) { return *p; }
// Without a sign: what is not a number becomes one of any size.
inline Sums added(Sums sum, Factors one, int, const std::int16_t* row) {
  return Sums(std::uint32_t(sum) + std::uint32_t(one * *row));
}
#endif
constexpr std::int64_t kSumLanes = sizeof(Sums) / sizeof(std::int32_t), kSumsOfVector = kLanes / kSumLanes;

// out[q][i] = sum over j < count of factors[q][j] * rows[j][i] for kShortQueries rows of factors, which may be read up to a
// whole vector, and `Vectors` times 16 columns. Rows lie by kTogether: column i of all of them, then column i + 1; after 16
// columns, `apart` further on, the next.
template <int Vectors>
inline void block_of_products(const std::int16_t* factors, std::int64_t factors_stride, const std::int16_t* rows,
                              std::int64_t stride, std::int64_t apart, std::int64_t count, std::int32_t* out,
                              std::int64_t out_stride) {
  constexpr std::int64_t each = Vectors * kSumsOfVector;
  Sums sums[kShortQueries * each];
#pragma GCC unroll 32
  for (Sums& sum : sums) sum = Sums{};
  for (std::int64_t j = 0; j < count; j += kTogether * kSteps) {
    Factors now[kShortQueries];
#pragma GCC unroll 32
    for (std::int64_t q = 0; q < kShortQueries; ++q) now[q] = factors_from(factors + q * factors_stride + j);
#pragma GCC unroll 4
    for (int step = 0; step < kSteps; ++step, rows += stride) {
      if (step > 0 && j + step * kTogether >= count) break;
#pragma GCC unroll 32
      for (std::int64_t q = 0; q < kShortQueries; ++q) {
#pragma GCC unroll 32
        for (std::int64_t i = 0; i < each; ++i) {
          const std::int16_t* row = rows + i / kSumsOfVector * apart + i % kSumsOfVector * kSumLanes * kTogether;
          sums[q * each + i] = added(sums[q * each + i], now[q], step, row);
        }
      }
    }
  }
#pragma GCC unroll 32
  for (std::int64_t q = 0; q < kShortQueries; ++q, out += out_stride) {
#pragma GCC unroll 32
    for (std::int64_t i = 0; i < each; ++i) store(out + i * kSumLanes, sums[q * each + i]);
  }
}

inline void products_of_block(const std::int16_t* factors, std::int64_t factors_stride, const std::int16_t* rows,
                              std::int64_t stride, std::int64_t apart, std::int64_t vectors, std::int64_t count,
                              std::int32_t* out, std::int64_t out_stride) {
  std::int64_t v = 0;
  for (; v + kSumsWide <= vectors; v += kSumsWide) {
    block_of_products<kSumsWide>(factors, factors_stride, rows + v * apart, stride, apart, count, out + v * kLanes, out_stride);
  }
  for (; v < vectors; ++v) {
    block_of_products<1>(factors, factors_stride, rows + v * apart, stride, apart, count, out + v * kLanes, out_stride);
  }
}

}  // namespace
