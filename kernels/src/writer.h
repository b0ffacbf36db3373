// Rows of float or 8 bits in, rows of float or 8 bits out.
#pragma once

#include "lanes.h"
#include "nas/norm.h"

namespace {

[[maybe_unused]] inline Floats row_from(const nas::Input& x, std::int64_t row, std::int64_t i, std::int64_t lanes) {
  const std::int64_t offset = row * x.stride + i;
  if (x.type == nas::Type::f32) return floats_from(static_cast<const float*>(x.data), offset, lanes);
  const Ints bytes = bytes_from(x.data, offset, x.type == nas::Type::s8, lanes) - x.quantization.zero_point;
  return to_floats(bytes) * x.quantization.scale;
}

// How a float becomes an element of the output.
struct Writer {
  const nas::Output y;
  std::int32_t low, high;
  explicit Writer(const nas::Output& to)
      : y(to),
        low(lowest(to.type == nas::Type::s8) - to.quantization.zero_point),
        high(highest(to.type == nas::Type::s8) - to.quantization.zero_point) {}

  void operator()(std::int64_t row, std::int64_t i, Floats value, std::int64_t lanes) const {
    const std::int64_t offset = row * y.stride + i;
    if (y.type == nas::Type::f32) {
      float* to = static_cast<float*>(y.data) + offset;
      lanes == kLanes ? store(to, value) : store_some(to, value, lanes);
      return;
    }
    const Ints q = rounded(within(value / y.quantization.scale, low, high)) + y.quantization.zero_point;
    bytes_to(y.data, offset, q, lanes);
  }
};

}  // namespace
