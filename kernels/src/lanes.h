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
#if defined(__AVX512F__)
  const __mmask16 mask = static_cast<__mmask16>((1U << count) - 1U);
  if constexpr (sizeof(Vector) == 64) {
    return reinterpret_cast<Vector>(_mm512_maskz_loadu_epi32(mask, p));
  } else {
    return reinterpret_cast<Vector>(_mm_maskz_loadu_epi8(mask, p));
  }
#else
  Vector v = {};
  std::memcpy(&v, p, static_cast<std::size_t>(count) * (sizeof v / kLanes));
  return v;
#endif
}

template <typename Vector>
[[maybe_unused]] inline void store(void* p, const Vector& v) {
  std::memcpy(p, &v, sizeof v);
}

template <typename Vector>
[[maybe_unused]] inline void store_some(void* p, const Vector& v, std::int64_t count) {
#if defined(__AVX512F__)
  const __mmask16 mask = static_cast<__mmask16>((1U << count) - 1U);
  if constexpr (sizeof(Vector) == 64) {
    _mm512_mask_storeu_epi32(p, mask, reinterpret_cast<__m512i>(v));
  } else {
    _mm_mask_storeu_epi8(p, mask, reinterpret_cast<__m128i>(v));
  }
#else
  std::memcpy(p, &v, static_cast<std::size_t>(count) * (sizeof v / kLanes));
#endif
}

// What the compiler makes of a choice between lanes, of a product and a sum in one rounding, or of a vector longer than a
// register is a loop over single lanes; so these are written for the registers that there are.
#if defined(__AVX512F__)
using Register = __m512;
inline Register smaller_of(Register a, Register b) { return _mm512_min_ps(a, b); }
inline Register larger_of(Register a, Register b) { return _mm512_max_ps(a, b); }
inline Register fused_of(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
inline Register first_if_less(Register a, Register b, Register yes, Register no) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
#elif defined(__AVX2__) && defined(__FMA__)
using Register = __m256;
inline Register smaller_of(Register a, Register b) { return _mm256_min_ps(a, b); }
inline Register larger_of(Register a, Register b) { return _mm256_max_ps(a, b); }
inline Register fused_of(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
inline Register first_if_less(Register a, Register b, Register yes, Register no) {
  return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
#elif defined(__aarch64__)
using Register = float32x4_t;
inline Register smaller_of(Register a, Register b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline Register larger_of(Register a, Register b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline Register fused_of(Register a, Register b, Register c) { return vfmaq_f32(c, a, b); }
inline Register first_if_less(Register a, Register b, Register yes, Register no) { return vbslq_f32(vcltq_f32(a, b), yes, no); }
#else
using Register = float;
inline Register smaller_of(Register a, Register b) { return a < b ? a : b; }
inline Register larger_of(Register a, Register b) { return a > b ? a : b; }
inline Register fused_of(Register a, Register b, Register c) { return std::fma(a, b, c); }
inline Register first_if_less(Register a, Register b, Register yes, Register no) { return a < b ? yes : no; }
#endif

template <class Function, class... Vectors>
[[maybe_unused]] inline Floats by_registers(Function function, const Vectors&... vectors) {
  Floats out;
  constexpr std::size_t count = sizeof(Floats) / sizeof(Register);
  const auto part = [](const Floats& x, std::size_t i) {
    Register one;
    std::memcpy(&one, reinterpret_cast<const char*>(&x) + i * sizeof one, sizeof one);
    return one;
  };
#pragma GCC unroll 16
  for (std::size_t i = 0; i < count; ++i) {
    const Register one = function(part(vectors, i)...);
    std::memcpy(reinterpret_cast<char*>(&out) + i * sizeof one, &one, sizeof one);
  }
  return out;
}

// The second where either is NaN, as x86's own instructions have it.
[[maybe_unused]] inline Floats smaller(Floats a, Floats b) { return by_registers(smaller_of, a, b); }
[[maybe_unused]] inline Floats larger(Floats a, Floats b) { return by_registers(larger_of, a, b); }

// One rounding.
[[maybe_unused]] inline Floats fused(Floats a, Floats b, Floats c) { return by_registers(fused_of, a, b, c); }

// `yes` in lanes where a < b, else `no`.
[[maybe_unused]] inline Floats if_less(Floats a, Floats b, Floats yes, Floats no) {
  return by_registers(first_if_less, a, b, yes, no);
}

// To the nearest integer, ties to even, for magnitudes below 2^22: adding 1.5 * 2^23 leaves no bits behind the point.
[[maybe_unused]] inline Ints rounded(Floats x) {
  const Floats shifted = x + 12582912.0F;
  return reinterpret_cast<Ints>(reinterpret_cast<Unsigned>(shifted) - 0x4B400000U);
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
#if defined(__AVX512F__)
  const __m512 all = reinterpret_cast<__m512>(x);
  const __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1));
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(all), upper);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  float half[8];
  for (int i = 0; i < 8; ++i) half[i] = x[i] + x[i + 8];
  for (int width = 4; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) half[i] = half[i] + half[i + width];
  }
  return half[0];
#endif
}

[[maybe_unused]] inline float max_of(Floats x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(reinterpret_cast<__m512>(x));
#else
  float largest = x[0];
  for (int i = 1; i < 16; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
#endif
}

// exp(x) for x <= 0, at most 1.2 units in the last place off; 0 below -87. x less a multiple of ln 2 (in two parts), in a
// polynomial fitted for the least largest error.
[[maybe_unused]] inline Floats exp_of_negative(Floats x) {
  const Floats bounded = larger(x, splat(-87.0F));
  const Floats shifted = fused(bounded, splat(1.44269504F), splat(12582912.0F));
  const Unsigned power = reinterpret_cast<Unsigned>(shifted) - 0x4B400000U;
  const Floats n = shifted - 12582912.0F;
  const Floats r = fused(n, splat(-1.42860677e-6F), fused(n, splat(-0.693145752F), bounded));
  Floats p = fused(r, splat(1.38143204e-3F), splat(8.36885109e-3F));
  p = fused(p, r, splat(4.16684011e-2F));
  p = fused(p, r, splat(1.66665195e-1F));
  p = fused(p, r, splat(4.99999934e-1F));
  p = fused(p, r, splat(1.0F));
  p = fused(p, r, splat(1.0F));
  // Without a sign: where x is not a number, or above 0, the sum may wrap.
  const Floats scaled = reinterpret_cast<Floats>(reinterpret_cast<Unsigned>(p) + (power << 23));
  return if_less(x, splat(-87.0F), Floats{}, scaled);
}

}  // namespace
