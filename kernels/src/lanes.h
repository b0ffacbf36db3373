// 16 floats at a time in the compiler's own vectors: one source for all instruction sets. Without contraction
// (-ffp-contract=off) and with sums in a fixed order, all of them give the same bits.
//
// Everything is in an anonymous namespace: files of different ISA include this, and a shared copy might be the one that
// needs AVX-512.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

constexpr std::int64_t kLanes = 16;

using Floats = float __attribute__((vector_size(64)));
using Ints = std::int32_t __attribute__((vector_size(64)));
using Unsigned = std::uint32_t __attribute__((vector_size(64)));
using Bytes = std::uint8_t __attribute__((vector_size(16)));
using SignedBytes = std::int8_t __attribute__((vector_size(16)));

[[maybe_unused]] inline Floats splat(float value) { return value - Floats{}; }
[[maybe_unused]] inline Ints splat_int(std::int32_t value) { return value - Ints{}; }

template <typename Vector>
[[maybe_unused]] inline Vector load(const void* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// The first `count` lanes; the others are zero.
template <typename Vector>
[[maybe_unused]] inline Vector load_some(const void* p, std::int64_t count) {
  Vector v = {};
  std::memcpy(&v, p, static_cast<std::size_t>(count) * (sizeof v / kLanes));
  return v;
}

template <typename Vector>
[[maybe_unused]] inline void store(void* p, const Vector& v) {
  std::memcpy(p, &v, sizeof v);
}

template <typename Vector>
[[maybe_unused]] inline void store_some(void* p, const Vector& v, std::int64_t count) {
  std::memcpy(p, &v, static_cast<std::size_t>(count) * (sizeof v / kLanes));
}

[[maybe_unused]] inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
[[maybe_unused]] inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// One rounding.
[[maybe_unused]] inline Floats fused(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b),
                                                  reinterpret_cast<__m512>(c)));
#else
  Floats out;
#if defined(__FMA__)
  for (int i = 0; i < 16; i += 8) {
    const float* pa = reinterpret_cast<const float*>(&a) + i;
    const float* pb = reinterpret_cast<const float*>(&b) + i;
    const float* pc = reinterpret_cast<const float*>(&c) + i;
    _mm256_storeu_ps(reinterpret_cast<float*>(&out) + i,
                     _mm256_fmadd_ps(_mm256_loadu_ps(pa), _mm256_loadu_ps(pb), _mm256_loadu_ps(pc)));
  }
#elif defined(__aarch64__)
  for (int i = 0; i < 16; i += 4) {
    const float* pa = reinterpret_cast<const float*>(&a) + i;
    const float* pb = reinterpret_cast<const float*>(&b) + i;
    const float* pc = reinterpret_cast<const float*>(&c) + i;
    vst1q_f32(reinterpret_cast<float*>(&out) + i, vfmaq_f32(vld1q_f32(pc), vld1q_f32(pa), vld1q_f32(pb)));
  }
#else
  for (int i = 0; i < 16; ++i) out[i] = std::fma(a[i], b[i], c[i]);
#endif
  return out;
#endif
}

// To the nearest integer, ties to even, for magnitudes below 2^22: adding 1.5 * 2^23 leaves no bits behind the point.
[[maybe_unused]] inline Ints rounded(Floats x) {
  const Floats shifted = x + 12582912.0F;
  return reinterpret_cast<Ints>(shifted) - 0x4B400000;
}

// --- 8 bits.

[[maybe_unused]] inline Ints widened(Bytes x) {
#if defined(__AVX512F__)
  return reinterpret_cast<Ints>(_mm512_cvtepu8_epi32(reinterpret_cast<__m128i>(x)));
#else
  return __builtin_convertvector(x, Ints);
#endif
}

[[maybe_unused]] inline Ints widened(SignedBytes x) {
#if defined(__AVX512F__)
  return reinterpret_cast<Ints>(_mm512_cvtepi8_epi32(reinterpret_cast<__m128i>(x)));
#else
  return __builtin_convertvector(x, Ints);
#endif
}

[[maybe_unused]] inline Ints load_bytes(const void* p, bool is_signed) {
  return is_signed ? widened(load<SignedBytes>(p)) : widened(load<Bytes>(p));
}

[[maybe_unused]] inline Ints load_some_bytes(const void* p, bool is_signed, std::int64_t count) {
  return is_signed ? widened(load_some<SignedBytes>(p, count)) : widened(load_some<Bytes>(p, count));
}

// The low 8 bits of each lane.
[[maybe_unused]] inline Bytes narrowed(Ints x) {
#if defined(__AVX512F__)
  return reinterpret_cast<Bytes>(_mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(x)));
#else
  return __builtin_convertvector(x, Bytes);
#endif
}

[[maybe_unused]] inline std::int32_t lowest(bool is_signed) { return is_signed ? -128 : 0; }
[[maybe_unused]] inline std::int32_t highest(bool is_signed) { return is_signed ? 127 : 255; }

// Calls body(offset, lanes) for whole vectors, then once for the rest.
template <typename Body>
[[maybe_unused]] inline void each_vector(std::int64_t count, Body body) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, kLanes);
  if (i < count) body(i, count - i);
}

[[maybe_unused]] inline const std::uint8_t* at(const void* p, std::int64_t i) { return static_cast<const std::uint8_t*>(p) + i; }

[[maybe_unused]] inline Ints bytes_from(const void* p, std::int64_t i, bool is_signed, std::int64_t lanes) {
  return lanes == kLanes ? load_bytes(at(p, i), is_signed) : load_some_bytes(at(p, i), is_signed, lanes);
}

[[maybe_unused]] inline void bytes_to(void* p, std::int64_t i, Ints x, std::int64_t lanes) {
  std::uint8_t* to = static_cast<std::uint8_t*>(p) + i;
  lanes == kLanes ? store(to, narrowed(x)) : store_some(to, narrowed(x), lanes);
}

[[maybe_unused]] inline Floats floats_from(const float* x, std::int64_t i, std::int64_t lanes) {
  return lanes == kLanes ? load<Floats>(x + i) : load_some<Floats>(x + i, lanes);
}

[[maybe_unused]] inline Floats within(Floats x, std::int32_t low, std::int32_t high) {
  return smaller(larger(x, splat(static_cast<float>(low))), splat(static_cast<float>(high)));
}

// --- Sums and maxima over lanes, always in the same order.

[[maybe_unused]] inline float sum_of(Floats x) {
  float half[8];
  for (int i = 0; i < 8; ++i) half[i] = x[i] + x[i + 8];
  for (int width = 4; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) half[i] = half[i] + half[i + width];
  }
  return half[0];
}

[[maybe_unused]] inline float max_of(Floats x) {
  float largest = x[0];
  for (int i = 1; i < 16; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// exp(x) for x <= 0, at most 1.2 units in the last place off; 0 below -87. x less a multiple of ln 2, whose first part
// has few enough bits for an exact product (Cody and Waite), in a polynomial fitted for the least largest error.
[[maybe_unused]] inline Floats exp_of_negative(Floats x) {
  const Floats bounded = larger(x, splat(-87.0F));
  const Ints power = rounded(bounded * 1.44269504F);
  const Floats n = __builtin_convertvector(power, Floats);
  const Floats r = (bounded - n * 0.693145752F) - n * 1.42860677e-6F;
  Floats p = r * 1.38143204e-3F + 8.36885109e-3F;
  p = p * r + 4.16684011e-2F;
  p = p * r + 1.66665195e-1F;
  p = p * r + 4.99999934e-1F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const Floats scaled = reinterpret_cast<Floats>(reinterpret_cast<Ints>(p) + (power << 23));
  return x < splat(-87.0F) ? Floats{} : scaled;
}

}  // namespace
