// Operators on bytes in plain C++; the compiler vectorizes them for the ISA of the file that includes this.
#pragma once

#include <cmath>
#include <cstring>

#include "../requantize/requantize.h"
#include "bytes.h"

namespace nas {
namespace {

void quantize_all(const float* in, std::uint8_t* out, std::size_t n, float scale, std::int32_t zero) {
  for (std::size_t i = 0; i < n; ++i) out[i] = quantize(in[i], scale, zero);
}

void quantize_planes(const float* in, std::uint8_t* out, std::size_t pixels, std::size_t channels, std::size_t plane,
                     float scale, std::int32_t zero) {
  for (std::size_t c = 0; c < channels; ++c) {
    for (std::size_t p = 0; p < pixels; ++p) out[p * channels + c] = quantize(in[c * plane + p], scale, zero);
  }
}

void dequantize(const std::uint8_t* in, float* out, std::size_t n, float scale, std::int32_t zero) {
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<float>(std::int32_t(in[i]) - zero) * scale;
}

void table(const std::uint8_t* in, std::uint8_t* out, std::size_t n, const std::uint8_t* table) {
  for (std::size_t i = 0; i < n; ++i) out[i] = table[in[i]];
}

void lookup(const std::uint8_t* in, float* out, std::size_t n, const float* table) {
  for (std::size_t i = 0; i < n; ++i) out[i] = table[in[i]];
}

void add(const std::uint8_t* a, const std::uint8_t* b, std::uint8_t* out, std::size_t n, const AddParams& p) {
  for (std::size_t i = 0; i < n; ++i) {
    // With a byte as argument std::fma would compute in double.
    const float x = a[i], y = b[i];
    out[i] = saturate(std::fma(x, p.ratio_a, std::fma(y, p.ratio_b, p.fixed)));
  }
}

void multiply(const std::uint8_t* a, const std::uint8_t* b, std::uint8_t* out, std::size_t pixels,
              std::size_t channels, const MulParams& p) {
  for (std::size_t pixel = 0; pixel < pixels; ++pixel, a += channels, out += channels) {
    for (std::size_t c = 0; c < channels; ++c) {
      out[c] = saturate((a[c] - p.zero_a) * (b[c] - p.zero_b) * p.ratio + p.zero_out);
    }
  }
}

void mean(const std::uint8_t* in, std::uint8_t* out, std::size_t pixels, std::size_t channels, std::int32_t* sums,
          float multiplier, std::int32_t zero_in, std::int32_t zero_out) {
  std::memset(sums, 0, channels * sizeof(std::int32_t));
  for (std::size_t pixel = 0; pixel < pixels; ++pixel, in += channels) {
    for (std::size_t c = 0; c < channels; ++c) sums[c] += in[c];
  }
  const std::int32_t offset = std::int32_t(pixels) * zero_in;
  for (std::size_t c = 0; c < channels; ++c) out[c] = requantize(sums[c] - offset, multiplier, zero_out);
}

}  // namespace

}  // namespace nas
