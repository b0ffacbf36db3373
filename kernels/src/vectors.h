// 16 numbers in registers of the instruction set that a file is compiled for: one of 64 bytes, two of 32 or four of 16.
// The compiler has vectors of any length, but what is longer than a register lies in memory there, and a choice or a
// conversion becomes a loop over single lanes.
//
// Everything is in an anonymous namespace: files of different ISA include this, and a shared copy might be the one that
// needs AVX-512.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// Everything that the function calls becomes part of it: what passes vectors from call to call would pass them in memory.
#define NAS_WHOLE [[gnu::flatten]]

namespace {

constexpr std::int64_t kLanes = 16;

#if defined(__AVX512F__)
constexpr int kRegister = 64;
#elif defined(__AVX2__)
constexpr int kRegister = 32;
#else
constexpr int kRegister = 16;
#endif

template <class Element>
struct Vector16 {
  typedef Element Part __attribute__((vector_size(kRegister)));  // an alias would lose the attribute
  // For memory: a copy of all parts at once would go through smaller registers and the stack.
  typedef Element Loose __attribute__((vector_size(kRegister), aligned(1), may_alias));
  static constexpr int kParts = int(kLanes * sizeof(Element)) / kRegister;
  Part part[kParts];
  Element operator[](int lane) const {
    constexpr int each = int(kLanes) / kParts;
    return part[lane / each][lane % each];
  }
};

using Floats = Vector16<float>;
using Ints = Vector16<std::int32_t>;
using Unsigned = Vector16<std::uint32_t>;
using Bytes = std::uint8_t __attribute__((vector_size(16)));
using SignedBytes = std::int8_t __attribute__((vector_size(16)));

// function(part, part, ...) of every register.
template <class Result, class Function, class... Vectors>
[[maybe_unused]] inline Result by_part(Function function, const Vectors&... vectors) {
  Result out;
#pragma GCC unroll 4
  for (int i = 0; i < Result::kParts; ++i) out.part[i] = function(vectors.part[i]...);
  return out;
}

#define NAS_LANES_OPERATOR(op)                                                                                         \
  template <class E>                                                                                                   \
  [[maybe_unused]] inline Vector16<E> operator op(const Vector16<E>& a, const Vector16<E>& b) {                        \
    return by_part<Vector16<E>>([](auto x, auto y) { return x op y; }, a, b);                                          \
  }                                                                                                                    \
  template <class E>                                                                                                   \
  [[maybe_unused]] inline Vector16<E> operator op(const Vector16<E>& a, E b) {                                         \
    return by_part<Vector16<E>>([b](auto x) { return x op b; }, a);                                                    \
  }
NAS_LANES_OPERATOR(+)
NAS_LANES_OPERATOR(-)
NAS_LANES_OPERATOR(*)
NAS_LANES_OPERATOR(/)
NAS_LANES_OPERATOR(&)
NAS_LANES_OPERATOR(|)
#undef NAS_LANES_OPERATOR

template <class E>
[[maybe_unused]] inline Vector16<E> operator/(E a, const Vector16<E>& b) {
  return by_part<Vector16<E>>([a](auto x) { return a / x; }, b);
}
template <class E>
[[maybe_unused]] inline Vector16<E> operator-(const Vector16<E>& a) {
  return by_part<Vector16<E>>([](auto x) { return -x; }, a);
}
template <class E>
[[maybe_unused]] inline Vector16<E> operator<<(const Vector16<E>& a, int bits) {
  return by_part<Vector16<E>>([bits](auto x) { return x << bits; }, a);
}
template <class E, class Other>
[[maybe_unused]] inline Vector16<E>& operator+=(Vector16<E>& a, const Other& b) {
  return a = a + b;
}
template <class E, class Other>
[[maybe_unused]] inline Vector16<E>& operator*=(Vector16<E>& a, const Other& b) {
  return a = a * b;
}

// Less zero, which leaves -0 alone, and so costs nothing.
[[maybe_unused]] inline Floats splat(float value) {
  return by_part<Floats>([value](auto zero) { return value - zero; }, Floats{});
}
[[maybe_unused]] inline Ints splat_int(std::int32_t value) { return Ints{} + value; }

// The same bits as another type.
template <class To, class From>
[[maybe_unused]] inline To bits_of(const Vector16<From>& from) {
  return by_part<To>([](auto x) { return typename To::Part(x); }, from);
}

// --- Memory.

template <class Vector>
[[maybe_unused]] inline Vector load(const void* p) {
  Vector v;
  if constexpr (std::is_class_v<Vector>) {
    using Loose = typename Vector::Loose;
#pragma GCC unroll 4
    for (int i = 0; i < Vector::kParts; ++i) v.part[i] = static_cast<const Loose*>(p)[i];
  } else {
    std::memcpy(&v, p, sizeof v);
  }
  return v;
}

template <class Vector>
[[maybe_unused]] inline void store(void* p, const Vector& v) {
  if constexpr (std::is_class_v<Vector>) {
    using Loose = typename Vector::Loose;
#pragma GCC unroll 4
    for (int i = 0; i < Vector::kParts; ++i) static_cast<Loose*>(p)[i] = v.part[i];
  } else {
    std::memcpy(p, &v, sizeof v);
  }
}

// The first `count` lanes; the others are zero.
template <class Vector>
[[maybe_unused]] inline Vector load_some(const void* p, std::int64_t count) {
#if defined(__AVX512F__)
  const __mmask16 mask = static_cast<__mmask16>((1U << count) - 1U);
  if constexpr (std::is_class_v<Vector>) {
    return {{typename Vector::Part(_mm512_maskz_loadu_epi32(mask, p))}};
  } else {
    return Vector(_mm_maskz_loadu_epi8(mask, p));
  }
#else
  Vector v = {};
  std::memcpy(&v, p, static_cast<std::size_t>(count) * (sizeof v / kLanes));
  return v;
#endif
}

template <class Vector>
[[maybe_unused]] inline void store_some(void* p, const Vector& v, std::int64_t count) {
#if defined(__AVX512F__)
  const __mmask16 mask = static_cast<__mmask16>((1U << count) - 1U);
  if constexpr (std::is_class_v<Vector>) {
    _mm512_mask_storeu_epi32(p, mask, __m512i(v.part[0]));
  } else {
    _mm_mask_storeu_epi8(p, mask, __m128i(v));
  }
#else
  std::memcpy(p, &v, static_cast<std::size_t>(count) * (sizeof v / kLanes));
#endif
}

// --- Choices between lanes, and a product and a sum in one rounding.

using FloatPart = Floats::Part;
using IntPart = Ints::Part;
#if defined(__AVX512F__)
inline FloatPart smaller_part(FloatPart a, FloatPart b) { return FloatPart(_mm512_min_ps(__m512(a), __m512(b))); }
inline FloatPart larger_part(FloatPart a, FloatPart b) { return FloatPart(_mm512_max_ps(__m512(a), __m512(b))); }
inline FloatPart fused_part(FloatPart a, FloatPart b, FloatPart c) {
  return FloatPart(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c)));
}
#elif defined(__AVX2__) && defined(__FMA__)
inline FloatPart smaller_part(FloatPart a, FloatPart b) { return FloatPart(_mm256_min_ps(__m256(a), __m256(b))); }
inline FloatPart larger_part(FloatPart a, FloatPart b) { return FloatPart(_mm256_max_ps(__m256(a), __m256(b))); }
inline FloatPart fused_part(FloatPart a, FloatPart b, FloatPart c) {
  return FloatPart(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c)));
}
#else
inline FloatPart smaller_part(FloatPart a, FloatPart b) { return a < b ? a : b; }
inline FloatPart larger_part(FloatPart a, FloatPart b) { return a > b ? a : b; }
inline FloatPart fused_part(FloatPart a, FloatPart b, FloatPart c) {
#if defined(__aarch64__)
  return FloatPart(vfmaq_f32(float32x4_t(c), float32x4_t(a), float32x4_t(b)));
#else
  FloatPart out = {};
  for (int i = 0; i < kRegister / 4; ++i) out[i] = std::fma(a[i], b[i], c[i]);
  return out;
#endif
}
#endif

// The second where either is NaN, as x86's own instructions have it.
[[maybe_unused]] inline Floats smaller(const Floats& a, const Floats& b) { return by_part<Floats>(smaller_part, a, b); }
[[maybe_unused]] inline Floats larger(const Floats& a, const Floats& b) { return by_part<Floats>(larger_part, a, b); }

// One rounding.
[[maybe_unused]] inline Floats fused(const Floats& a, const Floats& b, const Floats& c) {
  return by_part<Floats>(fused_part, a, b, c);
}

// `yes` in lanes where a < b, else `no`.
template <class E>
[[maybe_unused]] inline Vector16<E> if_less(const Vector16<E>& a, const Vector16<E>& b, const Vector16<E>& yes,
                                            const Vector16<E>& no) {
  return by_part<Vector16<E>>([](auto x, auto y, auto t, auto f) { return x < y ? t : f; }, a, b, yes, no);
}

// 0, 1, 2 ... 15.
[[maybe_unused]] inline Ints lane_numbers() {
  static constexpr std::int32_t numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load<Ints>(numbers);
}

// Lanes past the end of a row count as zero.
[[maybe_unused]] inline Floats kept(const Floats& value, std::int64_t lanes) {
  if (lanes == kLanes) return value;
  return bits_of<Floats>(if_less(lane_numbers(), splat_int(std::int32_t(lanes)), bits_of<Ints>(value), Ints{}));
}

// --- Other widths of numbers.

[[maybe_unused]] inline Floats to_floats(const Ints& x) {
  return by_part<Floats>([](auto part) { return __builtin_convertvector(part, FloatPart); }, x);
}

[[maybe_unused]] inline Ints widened(Bytes x) {
#if defined(__AVX512F__)
  return {{IntPart(_mm512_cvtepu8_epi32(__m128i(x)))}};
#elif defined(__AVX2__)
  return {{IntPart(_mm256_cvtepu8_epi32(__m128i(x))), IntPart(_mm256_cvtepu8_epi32(_mm_srli_si128(__m128i(x), 8)))}};
#elif defined(__aarch64__)
  const uint16x8_t low = vmovl_u8(vget_low_u8(uint8x16_t(x))), high = vmovl_high_u8(uint8x16_t(x));
  return {{IntPart(vmovl_u16(vget_low_u16(low))), IntPart(vmovl_high_u16(low)), IntPart(vmovl_u16(vget_low_u16(high))),
           IntPart(vmovl_high_u16(high))}};
#else
  Ints out;
  for (int i = 0; i < kLanes; ++i) out.part[i / 4][i % 4] = x[i];
  return out;
#endif
}

[[maybe_unused]] inline Ints widened(SignedBytes x) {
#if defined(__AVX512F__)
  return {{IntPart(_mm512_cvtepi8_epi32(__m128i(x)))}};
#elif defined(__AVX2__)
  return {{IntPart(_mm256_cvtepi8_epi32(__m128i(x))), IntPart(_mm256_cvtepi8_epi32(_mm_srli_si128(__m128i(x), 8)))}};
#elif defined(__aarch64__)
  const int16x8_t low = vmovl_s8(vget_low_s8(int8x16_t(x))), high = vmovl_high_s8(int8x16_t(x));
  return {{IntPart(vmovl_s16(vget_low_s16(low))), IntPart(vmovl_high_s16(low)), IntPart(vmovl_s16(vget_low_s16(high))),
           IntPart(vmovl_high_s16(high))}};
#else
  Ints out;
  for (int i = 0; i < kLanes; ++i) out.part[i / 4][i % 4] = x[i];
  return out;
#endif
}

// The low 8 bits of each lane.
[[maybe_unused]] inline Bytes narrowed(const Ints& x) {
#if defined(__AVX512F__)
  return Bytes(_mm512_cvtepi32_epi8(__m512i(x.part[0])));
#elif defined(__AVX2__)
  const __m256i mask = _mm256_set1_epi32(0xFF);
  const __m256i low = _mm256_and_si256(__m256i(x.part[0]), mask), high = _mm256_and_si256(__m256i(x.part[1]), mask);
  const __m256i shorts = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8);
  return Bytes(_mm_packus_epi16(_mm256_castsi256_si128(shorts), _mm256_extracti128_si256(shorts, 1)));
#elif defined(__aarch64__)
  const uint16x8_t low = vuzp1q_u16(uint16x8_t(x.part[0]), uint16x8_t(x.part[1]));
  const uint16x8_t high = vuzp1q_u16(uint16x8_t(x.part[2]), uint16x8_t(x.part[3]));
  return Bytes(vuzp1q_u8(uint8x16_t(low), uint8x16_t(high)));
#else
  Bytes out = {};
  for (int i = 0; i < kLanes; ++i) out[i] = std::uint8_t(x[i]);
  return out;
#endif
}

// As 16 bits each, into which they fit.
[[maybe_unused]] inline void store_shorts(std::int16_t* p, const Ints& x) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(__m512i(x.part[0])));
#elif defined(__AVX2__)
  const __m256i packed = _mm256_packs_epi32(__m256i(x.part[0]), __m256i(x.part[1]));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xD8));
#elif defined(__aarch64__)
  for (int i = 0; i < 4; i += 2) vst1q_s16(p + 4 * i, vuzp1q_s16(int16x8_t(x.part[i]), int16x8_t(x.part[i + 1])));
#else
  for (int i = 0; i < kLanes; ++i) p[i] = std::int16_t(x[i]);
#endif
}

// --- One number out of 16: lanes 8 apart first, then 4, 2 and 1, in every instruction set.

template <class E, class Function>
[[maybe_unused]] inline E reduced(const Vector16<E>& x, Function function) {
  typedef E Quad __attribute__((vector_size(16)));
  Quad quads[4];
  std::memcpy(quads, &x, sizeof quads);
  const Quad four = function(function(quads[0], quads[2]), function(quads[1], quads[3]));
  const Quad two = function(four, Quad{four[2], four[3], four[2], four[3]});
  return function(two, Quad{two[1], two[1], two[1], two[1]})[0];
}

[[maybe_unused]] inline float sum_of(const Floats& x) {
  return reduced(x, [](auto a, auto b) { return a + b; });
}
[[maybe_unused]] inline std::int32_t sum_of(const Ints& x) {
  return reduced(x, [](auto a, auto b) { return a + b; });
}
[[maybe_unused]] inline float max_of(const Floats& x) {
  return reduced(x, [](auto a, auto b) { return a > b ? a : b; });
}
[[maybe_unused]] inline std::int32_t max_of(const Ints& x) {
  return reduced(x, [](auto a, auto b) { return a > b ? a : b; });
}

}  // namespace
