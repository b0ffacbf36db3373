// Operators on bytes with AVX-512 (F, BW, VL), equal to the portable ones bit for bit.
#include <immintrin.h>

#include <cstring>

#include "bytes.h"

namespace nas {
namespace {

inline __mmask16 first16(std::size_t count) { return count >= 16 ? 0xFFFF : static_cast<__mmask16>((1U << count) - 1); }
inline __mmask64 first64(std::size_t count) { return count >= 64 ? ~0ULL : (1ULL << count) - 1; }

inline __m512 floats_at(const std::uint8_t* bytes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))));
}

inline __m512 floats_at(const std::uint8_t* bytes, __mmask16 mask) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, bytes)));
}

// Clamped, rounded to nearest even, then the zero point.
struct Quantizer {
  __m512 scale, inverse, low, high;
  __m512i zero;
  bool invertible;
  Quantizer(float scale_, std::int32_t zero_)
      : scale(_mm512_set1_ps(scale_)),
        inverse(_mm512_set1_ps(1.0F / scale_)),
        low(_mm512_set1_ps(float(-zero_))),
        high(_mm512_set1_ps(float(255 - zero_))),
        zero(_mm512_set1_epi32(zero_)),
        invertible(scale_ > 1e-30F && scale_ < 1e30F) {}
  __m512i around(__m512 value) const {
    // The second operand of max is what a NaN becomes.
    const __m512 clamped = _mm512_min_ps(_mm512_max_ps(value, low), high);
    return _mm512_add_epi32(_mm512_cvtps_epi32(clamped), zero);
  }
  // Division takes most of the time of quantizing. The product with the inverse is off by 2^-14 at most where it is not
  // clamped, so only near a half can it round another way; such a vector is divided.
  __m512i quantized(__m512 value) const {
    const __m512 near = _mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(value, inverse), low), high);
    const __m512i whole = _mm512_cvtps_epi32(near);
    const __m512 rest = _mm512_abs_ps(_mm512_sub_ps(near, _mm512_cvtepi32_ps(whole)));
    const __mmask16 doubtful = _mm512_cmp_ps_mask(rest, _mm512_set1_ps(0.4999F), _CMP_NLT_UQ);
    if (__builtin_expect(doubtful != 0 || !invertible, 0)) return around(_mm512_div_ps(value, scale));
    return _mm512_add_epi32(whole, zero);
  }
};

inline __m128i saturated(__m512 value) {
  const __m512 clamped = _mm512_min_ps(_mm512_max_ps(value, _mm512_setzero_ps()), _mm512_set1_ps(255.0F));
  return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(clamped));
}

void quantize(const float* in, std::uint8_t* out, std::size_t n, float scale, std::int32_t zero) {
  const Quantizer q(scale, zero);
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first16(n - i);
    const __m512i bytes = q.quantized(_mm512_maskz_loadu_ps(mask, in + i));
    _mm512_mask_cvtepi32_storeu_epi8(out + i, mask, bytes);
  }
}

void quantize_planes(const float* in, std::uint8_t* out, std::size_t pixels, std::size_t channels, std::size_t plane,
                     float scale, std::int32_t zero) {
  const Quantizer q(scale, zero);
  if (channels == 3) {
    // A pixel's three bytes in one 32-bit element, then 12 of 16 bytes of each lane, then 3 of 4 elements.
    const __m512i gather = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 0, 0, 0, 0));
    const __m512i order = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 0, 0, 0, 0);
    for (std::size_t p = 0; p < pixels; p += 16) {
      const std::size_t count = pixels - p < 16 ? pixels - p : 16;
      const __mmask16 mask = first16(count);
      const __m512i red = q.quantized(_mm512_maskz_loadu_ps(mask, in + p));
      const __m512i green = q.quantized(_mm512_maskz_loadu_ps(mask, in + plane + p));
      const __m512i blue = q.quantized(_mm512_maskz_loadu_ps(mask, in + 2 * plane + p));
      const __m512i joined = _mm512_or_si512(red, _mm512_or_si512(_mm512_slli_epi32(green, 8), _mm512_slli_epi32(blue, 16)));
      const __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_shuffle_epi8(joined, gather));
      _mm512_mask_storeu_epi8(out + 3 * p, first64(3 * count), bytes);
    }
    return;
  }
  alignas(64) std::uint8_t bytes[16];
  for (std::size_t c = 0; c < channels; ++c) {
    for (std::size_t p = 0; p < pixels; p += 16) {
      const std::size_t count = pixels - p < 16 ? pixels - p : 16;
      const __m512 values = _mm512_maskz_loadu_ps(first16(count), in + c * plane + p);
      _mm_store_si128(reinterpret_cast<__m128i*>(bytes), _mm512_cvtepi32_epi8(q.quantized(values)));
      for (std::size_t i = 0; i < count; ++i) out[(p + i) * channels + c] = bytes[i];
    }
  }
}

void dequantize(const std::uint8_t* in, float* out, std::size_t n, float scale, std::int32_t zero) {
  const __m512i shift = _mm512_set1_epi32(zero);
  const __m512 factor = _mm512_set1_ps(scale);
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first16(n - i);
    const __m512i value = _mm512_sub_epi32(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, in + i)), shift);
    _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(_mm512_cvtepi32_ps(value), factor));
  }
}

// 16 shuffles of 16 entries each, every one kept where the byte's high half names it.
void table(const std::uint8_t* in, std::uint8_t* out, std::size_t n, const std::uint8_t* entries) {
  __m512i parts[16];
  for (int part = 0; part < 16; ++part) {
    parts[part] = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(entries + 16 * part)));
  }
  for (std::size_t i = 0; i < n; i += 64) {
    const __mmask64 mask = first64(n - i);
    const __m512i bytes = _mm512_maskz_loadu_epi8(mask, in + i);
    const __m512i low = _mm512_and_si512(bytes, _mm512_set1_epi8(15));
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), _mm512_set1_epi8(15));
    __m512i found = _mm512_setzero_si512();
#pragma GCC unroll 16
    for (int part = 0; part < 16; ++part) {
      const __mmask64 here = _mm512_cmpeq_epi8_mask(high, _mm512_set1_epi8(char(part)));
      found = _mm512_mask_shuffle_epi8(found, here, parts[part], low);
    }
    _mm512_mask_storeu_epi8(out + i, mask, found);
  }
}

void lookup(const std::uint8_t* in, float* out, std::size_t n, const float* entries) {
  for (std::size_t i = 0; i < n; ++i) out[i] = entries[in[i]];
}

void add(const std::uint8_t* a, const std::uint8_t* b, std::uint8_t* out, std::size_t n, const AddParams& p) {
  const __m512 ratio_a = _mm512_set1_ps(p.ratio_a), ratio_b = _mm512_set1_ps(p.ratio_b), fixed = _mm512_set1_ps(p.fixed);
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m512 sum = _mm512_fmadd_ps(floats_at(a + i), ratio_a, _mm512_fmadd_ps(floats_at(b + i), ratio_b, fixed));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), saturated(sum));
  }
  if (i < n) {
    const __mmask16 mask = first16(n - i);
    const __m512 sum = _mm512_fmadd_ps(floats_at(a + i, mask), ratio_a, _mm512_fmadd_ps(floats_at(b + i, mask), ratio_b, fixed));
    _mm_mask_storeu_epi8(out + i, mask, saturated(sum));
  }
}

void multiply(const std::uint8_t* a, const std::uint8_t* b, std::uint8_t* out, std::size_t pixels,
              std::size_t channels, const MulParams& p) {
  const __m512 zero_a = _mm512_set1_ps(p.zero_a), zero_b = _mm512_set1_ps(p.zero_b);
  const __m512 ratio = _mm512_set1_ps(p.ratio), zero = _mm512_set1_ps(p.zero_out);
  for (std::size_t c = 0; c < channels; c += 16) {
    const __mmask16 mask = first16(channels - c);
    const __m512 factor = _mm512_sub_ps(floats_at(b + c, mask), zero_b);
    const std::uint8_t* from = a + c;
    std::uint8_t* to = out + c;
    for (std::size_t pixel = 0; pixel < pixels; ++pixel, from += channels, to += channels) {
      const __m512 product = _mm512_mul_ps(_mm512_sub_ps(floats_at(from, mask), zero_a), factor);
      _mm_mask_storeu_epi8(to, mask, saturated(_mm512_add_ps(_mm512_mul_ps(product, ratio), zero)));
    }
  }
}

void mean(const std::uint8_t* in, std::uint8_t* out, std::size_t pixels, std::size_t channels, std::int32_t*,
          float multiplier, std::int32_t zero_in, std::int32_t zero_out) {
  const Quantizer q(1.0F, zero_out);
  const __m512i offset = _mm512_set1_epi32(std::int32_t(pixels) * zero_in);
  for (std::size_t c = 0; c < channels; c += 16) {
    const __mmask16 mask = first16(channels - c);
    __m512i sum = _mm512_setzero_si512();
    const std::uint8_t* from = in + c;
    for (std::size_t pixel = 0; pixel < pixels; ++pixel, from += channels) {
      sum = _mm512_add_epi32(sum, _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, from)));
    }
    const __m512 value = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, offset));
    _mm512_mask_cvtepi32_storeu_epi8(out + c, mask, q.around(_mm512_mul_ps(value, _mm512_set1_ps(multiplier))));
  }
}

}  // namespace

const ByteKernels byte_kernels_avx512 = {"avx512", quantize, quantize_planes, dequantize, table, lookup, add, multiply, mean};

}  // namespace nas
