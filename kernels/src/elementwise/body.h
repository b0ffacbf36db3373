// The kernels of nas/elementwise.h for one instruction set, that of the file that includes this.
#pragma once

#include "../lanes.h"
#include "nas/elementwise.h"

namespace {

// Copies of the arguments, here and below, are known not to change while results are stored.
NAS_WHOLE void add(const nas::BinaryArgs& given) {
  const nas::BinaryArgs args = given;
  const bool is_signed = args.c.is_signed;
  const float a_ratio = args.a.scale / args.c.scale;
  const float b_ratio = args.b.scale / args.c.scale;
  const float b_zero = b_ratio * static_cast<float>(args.b.zero_point);
  float fixed = static_cast<float>(args.c.zero_point) -
                std::fma(a_ratio, static_cast<float>(args.a.zero_point), b_zero);
  const auto b_one = [&] { return is_signed ? *static_cast<const std::int8_t*>(args.b_data) : *at(args.b_data, 0); };
  const bool single = args.b_count == 1 && args.count != 1;
  if (single) {
    const float product = static_cast<float>(b_one()) * b_ratio;
    fixed = fixed + product;
  }
  each_vector(args.count, [&](std::int64_t i, std::int64_t lanes) {
    Floats sum = splat(fixed);
    if (!single) {
      const Floats b = to_floats(bytes_from(args.b_data, i, is_signed, lanes));
      sum = fused(b, splat(b_ratio), sum);
    }
    const Floats a = to_floats(bytes_from(args.a_data, i, is_signed, lanes));
    sum = fused(a, splat(a_ratio), sum);
    bytes_to(args.c_data, i, rounded(within(sum, args.low, args.high)), lanes);
  });
}

NAS_WHOLE void multiply(const nas::BinaryArgs& given) {
  const nas::BinaryArgs args = given;
  const bool is_signed = args.c.is_signed;
  const float ratio = args.a.scale * args.b.scale / args.c.scale;
  const bool single = args.b_count == 1 && args.count != 1;
  const std::int32_t one = is_signed ? *static_cast<const std::int8_t*>(args.b_data) : *at(args.b_data, 0);
  each_vector(args.count, [&](std::int64_t i, std::int64_t lanes) {
    const Ints a = bytes_from(args.a_data, i, is_signed, lanes) - args.a.zero_point;
    const Ints b = (single ? splat_int(one) : bytes_from(args.b_data, i, is_signed, lanes)) - args.b.zero_point;
    const Floats value = to_floats(a * b) * ratio + static_cast<float>(args.c.zero_point);
    bytes_to(args.c_data, i, rounded(within(value, args.low, args.high)), lanes);
  });
}

NAS_WHOLE void quantize(const float* x, std::int64_t count, const nas::Quantization& given, void* out) {
  const nas::Quantization to = given;
  const std::int32_t low = lowest(to.is_signed) - to.zero_point;
  const std::int32_t high = highest(to.is_signed) - to.zero_point;
  each_vector(count, [&](std::int64_t i, std::int64_t lanes) {
    const Floats value = floats_from(x, i, lanes) / to.scale;
    bytes_to(out, i, rounded(within(value, low, high)) + to.zero_point, lanes);
  });
}

NAS_WHOLE void dequantize(const void* x, std::int64_t count, const nas::Quantization& given, float* out) {
  const nas::Quantization from = given;
  each_vector(count, [&](std::int64_t i, std::int64_t lanes) {
    const Ints value = bytes_from(x, i, from.is_signed, lanes) - from.zero_point;
    const Floats real = to_floats(value) * from.scale;
    lanes == kLanes ? store(out + i, real) : store_some(out + i, real, lanes);
  });
}

NAS_WHOLE void range(const float* x, std::int64_t count, float* low, float* high) {
  Floats smallest = {};
  Floats largest = {};
  each_vector(count, [&](std::int64_t i, std::int64_t lanes) {
    const Floats value = floats_from(x, i, lanes);
    smallest = smaller(value, smallest);
    largest = larger(value, largest);
  });
  *low = -max_of(-smallest);
  *high = max_of(largest);
}

#if defined(__AVX512VBMI__)
// Two permutations of 128 entries each; the top bit of the index chooses between them.
void lookup(const std::uint8_t* in, std::int64_t count, const std::uint8_t* table, std::uint8_t* out) {
  __m512i quarters[4];
  for (int i = 0; i < 4; ++i) quarters[i] = _mm512_loadu_si512(table + 64 * i);
  for (std::int64_t i = 0; i < count; i += 64) {
    const __mmask64 mask = count - i >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << (count - i)) - 1;
    const __m512i index = _mm512_maskz_loadu_epi8(mask, in + i);
    const __m512i low = _mm512_permutex2var_epi8(quarters[0], index, quarters[1]);
    const __m512i high = _mm512_permutex2var_epi8(quarters[2], index, quarters[3]);
    _mm512_mask_storeu_epi8(out + i, mask, _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(index), high));
  }
}
#elif defined(__aarch64__)
// An index beyond a quarter of the table gives or keeps zero, so four lookups over shifted indices cover all of it.
void lookup(const std::uint8_t* in, std::int64_t count, const std::uint8_t* table, std::uint8_t* out) {
  uint8x16x4_t quarters[4];
  for (int i = 0; i < 4; ++i) quarters[i] = vld1q_u8_x4(table + 64 * i);
  std::int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const uint8x16_t index = vld1q_u8(in + i);
    uint8x16_t found = vqtbl4q_u8(quarters[0], index);
    found = vqtbx4q_u8(found, quarters[1], vsubq_u8(index, vdupq_n_u8(64)));
    found = vqtbx4q_u8(found, quarters[2], vsubq_u8(index, vdupq_n_u8(128)));
    found = vqtbx4q_u8(found, quarters[3], vsubq_u8(index, vdupq_n_u8(192)));
    vst1q_u8(out + i, found);
  }
  for (; i < count; ++i) out[i] = table[in[i]];
}
#else
void lookup(const std::uint8_t* in, std::int64_t count, const std::uint8_t* table, std::uint8_t* out) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = table[in[i]];
}
#endif

}  // namespace

#define NAS_ELEMENTWISE_KERNELS(level) {level, add, multiply, lookup, quantize, dequantize, range}
