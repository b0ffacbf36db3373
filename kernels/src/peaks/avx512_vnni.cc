#include <immintrin.h>

#include "dot_tail.h"
#include "nas/peaks.h"
#include "opaque.h"

namespace nas {
namespace {

// gcc 12 spills the accumulators of _mm512_dpbusd_epi32 to the stack; one line of assembly keeps them.
__m512i mac(__m512i sum, __m512i u8, __m512i s8) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
  return sum;
}

std::uint32_t dot_burst(std::int64_t iterations) {
  const __m512i a = _mm512_set1_epi32(kBurstU8 * 0x01010101);
  const __m512i b = _mm512_set1_epi32(kBurstS8 * 0x01010101);
  __m512i sums[12] = {};
#pragma GCC unroll 12
  for (__m512i& sum : sums) sum = opaque(sum);
  for (std::int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (__m512i& sum : sums) sum = mac(sum, a, b);
  }
  __m512i total = _mm512_setzero_si512();
  for (const __m512i& sum : sums) total = _mm512_add_epi32(total, sum);
  return static_cast<std::uint32_t>(_mm512_reduce_add_epi32(total));
}

std::int32_t dot(const std::uint8_t* a, const std::int8_t* b, std::size_t n) {
  __m512i sum = _mm512_setzero_si512();
  std::size_t i = 0;
  for (; i + 64 <= n; i += 64) sum = mac(sum, _mm512_loadu_si512(a + i), _mm512_loadu_si512(b + i));
  return _mm512_reduce_add_epi32(sum) + dot_tail(a, b, i, n);
}

}  // namespace

const Int8Kernel dot_u8s8s32_12x64_avx512vnni = {"avx512_vnni", 12 * 64, dot_burst, dot};

}  // namespace nas
