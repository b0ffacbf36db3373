// The one rounding rule: scale in float, clamp, round to nearest even, add the zero point. ONNX Runtime's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace nas {

// Internal linkage: a file for one ISA must not lend its copy to another.
namespace {

inline std::uint8_t saturate_around(float scaled, std::int32_t zero) {
  const float low = static_cast<float>(-zero), high = static_cast<float>(255 - zero);
  // NaN becomes the low end, as max(NaN, low) gives in SSE.
  const float clamped = scaled > low ? std::min(scaled, high) : low;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(std::nearbyintf(clamped)) + zero);
}

[[maybe_unused]] inline std::uint8_t requantize(std::int32_t sum, float multiplier, std::int32_t zero) {
  return saturate_around(static_cast<float>(sum) * multiplier, zero);
}

[[maybe_unused]] inline std::uint8_t quantize(float value, float scale, std::int32_t zero) {
  return saturate_around(value / scale, zero);
}

// For the operators whose zero point is part of the sum in float (QLinearAdd, QLinearMul).
[[maybe_unused]] inline std::uint8_t saturate(float value) {
  const float clamped = value > 0.0F ? std::min(value, 255.0F) : 0.0F;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(std::nearbyintf(clamped)));
}

}  // namespace
}  // namespace nas
