// Dot products of four bytes in each of eight lanes, without saturation, in the encoding of the file's instruction set: VEX
// with AVX-VNNI, EVEX with AVX512-VL and AVX512-VNNI, where the same sources can be run and tested. Internal linkage:
// included by files for one ISA each.
#pragma once

#include <immintrin.h>

namespace nas {
namespace {

// gcc 12 spills the accumulators of the intrinsics to the stack; one line of assembly keeps them.
[[maybe_unused]] inline __m256i dot256(__m256i sum, __m256i u8, __m256i s8) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  __asm__("%{evex%} vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
#else
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(u8), "x"(s8));
#endif
  return sum;
}

}  // namespace
}  // namespace nas
