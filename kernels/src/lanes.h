// Rows of floats and of bytes, 16 lanes at a time: one source for all instruction sets. Without contraction
// (-ffp-contract=off) and with sums in a fixed order, all of them give the same bits.
//
// Everything is in an anonymous namespace, see vectors.h.
#pragma once

#include "vectors.h"

namespace {

// To the nearest integer, ties to even, for magnitudes below 2^22: adding 1.5 * 2^23 leaves no bits behind the point.
[[maybe_unused]] inline Ints rounded(Floats x) {
  const Floats shifted = x + 12582912.0F;
  return bits_of<Ints>(bits_of<Unsigned>(shifted) - 0x4B400000U);
}

// --- 8 bits.

[[maybe_unused]] inline Ints load_bytes(const void* p, bool is_signed) {
  return is_signed ? widened(load<SignedBytes>(p)) : widened(load<Bytes>(p));
}

[[maybe_unused]] inline Ints load_some_bytes(const void* p, bool is_signed, std::int64_t count) {
  return is_signed ? widened(load_some<SignedBytes>(p, count)) : widened(load_some<Bytes>(p, count));
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

// exp(x) for x <= 0, at most 1.2 units in the last place off; 0 below -87. x less a multiple of ln 2 (in two parts), in a
// polynomial fitted for the least largest error.
[[maybe_unused, gnu::always_inline]] inline Floats exp_of_negative(Floats x) {
  const Floats bounded = larger(x, splat(-87.0F));
  const Floats shifted = fused(bounded, splat(1.44269504F), splat(12582912.0F));
  const Unsigned power = bits_of<Unsigned>(shifted) - 0x4B400000U;
  const Floats n = shifted - 12582912.0F;
  const Floats r = fused(n, splat(-1.42860677e-6F), fused(n, splat(-0.693145752F), bounded));
  Floats p = fused(r, splat(1.38143204e-3F), splat(8.36885109e-3F));
  p = fused(p, r, splat(4.16684011e-2F));
  p = fused(p, r, splat(1.66665195e-1F));
  p = fused(p, r, splat(4.99999934e-1F));
  p = fused(p, r, splat(1.0F));
  p = fused(p, r, splat(1.0F));
  // Without a sign: where x is not a number, or above 0, the sum may wrap.
  const Floats scaled = bits_of<Floats>(bits_of<Unsigned>(p) + (power << 23));
  return if_less(x, splat(-87.0F), Floats{}, scaled);
}

}  // namespace
