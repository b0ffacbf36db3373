// Depthwise 3x3 with AVX512-VNNI, strides 1 and 2, 64 or 32 channels at a time.
//
// The three bytes of a column of the window and a fourth that meets weight 0 are interleaved by unpacking, so that one
// vpdpbusd sums a column for 16 channels. A column is interleaved once and used by the three outputs that read it.
#include <immintrin.h>

#include <cstring>

#include "../conv/conv.h"
#include "../conv/packed.h"
#include "../requantize/avx512.h"

namespace nas {
namespace {

#define NAS_INLINE inline __attribute__((always_inline))

// The same operations on 64 and on 32 channels.
struct Wide {
  using V = __m512i;
  static constexpr int kChannels = 64;
  static NAS_INLINE V load(const std::uint8_t* p, __mmask64 m) { return _mm512_maskz_loadu_epi8(m, p); }
  static NAS_INLINE V load(const std::uint8_t* p) { return _mm512_loadu_si512(p); }
  static NAS_INLINE V aligned(const void* p) { return _mm512_load_si512(p); }
  static NAS_INLINE V bytes(int value) { return _mm512_set1_epi8(char(value)); }
  static NAS_INLINE V shorts(int value) { return _mm512_set1_epi16(short(value)); }
  static NAS_INLINE V low8(V a, V b) { return _mm512_unpacklo_epi8(a, b); }
  static NAS_INLINE V high8(V a, V b) { return _mm512_unpackhi_epi8(a, b); }
  static NAS_INLINE V low16(V a, V b) { return _mm512_unpacklo_epi16(a, b); }
  static NAS_INLINE V high16(V a, V b) { return _mm512_unpackhi_epi16(a, b); }
  static NAS_INLINE V dot(V sum, V u8, V s8) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
    return sum;
  }
  static NAS_INLINE V scaled(V sum, const float* m) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_load_ps(m)));
  }
  static NAS_INLINE V packed(const V* sums, const float* m, V zero) {
    const V low = _mm512_packs_epi32(scaled(sums[0], m), scaled(sums[1], m + 16));
    const V high = _mm512_packs_epi32(scaled(sums[2], m + 32), scaled(sums[3], m + 48));
    return _mm512_packus_epi16(_mm512_adds_epi16(low, zero), _mm512_adds_epi16(high, zero));
  }
  static NAS_INLINE void store(std::uint8_t* p, V v) { _mm512_storeu_si512(p, v); }
  static NAS_INLINE void store(std::uint8_t* p, __mmask64 m, V v) { _mm512_mask_storeu_epi8(p, m, v); }
};

struct Half {
  using V = __m256i;
  static constexpr int kChannels = 32;
  static NAS_INLINE V load(const std::uint8_t* p, __mmask64 m) { return _mm256_maskz_loadu_epi8(__mmask32(m), p); }
  static NAS_INLINE V load(const std::uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const V*>(p)); }
  static NAS_INLINE V aligned(const void* p) { return _mm256_load_si256(static_cast<const V*>(p)); }
  static NAS_INLINE V bytes(int value) { return _mm256_set1_epi8(char(value)); }
  static NAS_INLINE V shorts(int value) { return _mm256_set1_epi16(short(value)); }
  static NAS_INLINE V low8(V a, V b) { return _mm256_unpacklo_epi8(a, b); }
  static NAS_INLINE V high8(V a, V b) { return _mm256_unpackhi_epi8(a, b); }
  static NAS_INLINE V low16(V a, V b) { return _mm256_unpacklo_epi16(a, b); }
  static NAS_INLINE V high16(V a, V b) { return _mm256_unpackhi_epi16(a, b); }
  static NAS_INLINE V dot(V sum, V u8, V s8) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
    return sum;
  }
  static NAS_INLINE V scaled(V sum, const float* m) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_load_ps(m)));
  }
  static NAS_INLINE V packed(const V* sums, const float* m, V zero) {
    const V low = _mm256_packs_epi32(scaled(sums[0], m), scaled(sums[1], m + 8));
    const V high = _mm256_packs_epi32(scaled(sums[2], m + 16), scaled(sums[3], m + 24));
    return _mm256_packus_epi16(_mm256_adds_epi16(low, zero), _mm256_adds_epi16(high, zero));
  }
  static NAS_INLINE void store(std::uint8_t* p, V v) { _mm256_storeu_si256(reinterpret_cast<V*>(p), v); }
  static NAS_INLINE void store(std::uint8_t* p, __mmask64 m, V v) { _mm256_mask_storeu_epi8(p, __mmask32(m), v); }
};

struct Block {
  int first, channels;
  bool wide;
  const std::int8_t* weights;   // (3 columns, 4 vectors, vector)
  const std::int32_t* bias;     // (4 vectors)
  const float* multiplier;
};

// Interleaves columns of one output row and sums them; FULL where a block has no channel to mask.
template <class T, bool FULL>
struct Row {
  using V = typename T::V;
  const std::uint8_t* rows[3];
  std::ptrdiff_t step[3];  // bytes between columns, 0 in a row of padding
  int width, zero_in;
  __mmask64 mask;
  const float* multiplier;
  V weights[3][4], bias[4], zero;

  NAS_INLINE void column(V* to, int x) const {
    if (__builtin_expect(x < 0 || x >= width, 0)) {
      to[0] = to[1] = to[2] = to[3] = T::bytes(zero_in);
      return;
    }
    V r[3];
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) {
      const std::uint8_t* at = rows[k] + x * step[k];
      r[k] = FULL ? T::load(at) : T::load(at, mask);
    }
    const V low = T::low8(r[0], r[1]), high = T::high8(r[0], r[1]);
    // The third byte doubles as the fourth, whose weight is 0.
    const V low2 = T::low8(r[2], r[2]), high2 = T::high8(r[2], r[2]);
    to[0] = T::low16(low, low2);
    to[1] = T::high16(low, low2);
    to[2] = T::low16(high, high2);
    to[3] = T::high16(high, high2);
  }

  NAS_INLINE void output(std::uint8_t* out, const V* a, const V* b, const V* c) const {
    V sums[4];
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) sums[q] = T::dot(bias[q], a[q], weights[0][q]);
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) sums[q] = T::dot(sums[q], b[q], weights[1][q]);
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) sums[q] = T::dot(sums[q], c[q], weights[2][q]);
    const V bytes = T::packed(sums, multiplier, zero);
    if constexpr (FULL) {
      T::store(out, bytes);
    } else {
      T::store(out, mask, bytes);
    }
  }

  // Outputs read columns x * stride - left and the two after it.
  NAS_INLINE void run(std::uint8_t* out, int count, int stride, int left, std::ptrdiff_t pixel) const {
    V a[4], b[4], c[4];
    int x = -left;
    if (stride == 1) {
      column(a, x);
      column(b, x + 1);
      int i = 0;
      for (; i + 3 <= count; i += 3, x += 3, out += 3 * pixel) {
        column(c, x + 2);
        output(out, a, b, c);
        column(a, x + 3);
        output(out + pixel, b, c, a);
        column(b, x + 4);
        output(out + 2 * pixel, c, a, b);
      }
      if (i < count) {
        column(c, x + 2);
        output(out, a, b, c);
      }
      if (i + 1 < count) {
        column(a, x + 3);
        output(out + pixel, b, c, a);
      }
      return;
    }
    column(a, x);
    int i = 0;
    for (; i + 2 <= count; i += 2, x += 4, out += 2 * pixel) {
      column(b, x + 1);
      column(c, x + 2);
      output(out, a, b, c);
      column(b, x + 3);
      column(a, x + 4);
      output(out + pixel, c, b, a);
    }
    if (i < count) {
      column(b, x + 1);
      column(c, x + 2);
      output(out, a, b, c);
    }
  }
};

class Depthwise3x3 final : public ConvU8 {
 public:
  explicit Depthwise3x3(const ConvU8Params& params)
      : s_(params.shape), zero_in_(params.zero_in), zero_out_(params.zero_out) {
    blocks_ = new Block[s_.channels / 32 + 1];
    const std::size_t padded = std::size_t(s_.channels / 32 + 2) * 32;
    weights_ = Aligned<std::int8_t>(padded * 12);
    bias_ = Aligned<std::int32_t>(padded);
    multiplier_ = Aligned<float>(padded);
    for (int first = 0; first < s_.channels;) {
      const int left = s_.channels - first;
      const bool wide = left > 32;
      const int width = wide ? 64 : 32, channels = left < width ? left : width, lanes = width / 4;
      std::int8_t* weights = weights_ + std::size_t(12) * first;
      for (int q = 0; q < 4; ++q) {
        for (int e = 0; e < lanes; ++e) {
          // Unpacking leaves channel 16 * lane + 4 * vector + element in that place.
          const int channel = 16 * (e / 4) + 4 * q + e % 4;
          if (channel >= channels) continue;
          bias_[first + q * lanes + e] = params.bias[first + channel];
          multiplier_[first + q * lanes + e] = params.multiplier[first + channel];
          for (int kx = 0; kx < 3; ++kx) {
            for (int ky = 0; ky < 3; ++ky) {
              weights[(kx * 4 + q) * width + 4 * e + ky] = params.weights[std::size_t(first + channel) * 9 + ky * 3 + kx];
            }
          }
        }
      }
      blocks_[count_++] = {first, channels, wide, weights, bias_ + first, multiplier_ + first};
      first += channels;
    }
  }
  Depthwise3x3(const Depthwise3x3&) = delete;
  Depthwise3x3& operator=(const Depthwise3x3&) = delete;
  ~Depthwise3x3() override { delete[] blocks_; }

  const char* kernel() const override { return "depthwise3x3_u8s8u8_3x64_avx512vnni"; }
  std::size_t scratch_bytes() const override { return 64; }

  void run(const ConvShape& s, const std::uint8_t* input, void* output, std::uint8_t* scratch) const override {
    std::memset(scratch, zero_in_, 64);
    const std::size_t image = std::size_t(s.height) * s.width * s.in_pixel;
    const std::size_t out_image = std::size_t(s.out_height) * s.out_width * s.out_pixel;
    std::uint8_t* out = static_cast<std::uint8_t*>(output);
    for (int n = 0; n < s.batch; ++n, input += image, out += out_image) {
      for (int index = 0; index < count_; ++index) {
        const Block& block = blocks_[index];
        if (block.wide) {
          block.channels == 64 ? run_block<Wide, true>(s, block, input, out, scratch)
                               : run_block<Wide, false>(s, block, input, out, scratch);
        } else {
          block.channels == 32 ? run_block<Half, true>(s, block, input, out, scratch)
                               : run_block<Half, false>(s, block, input, out, scratch);
        }
      }
    }
  }

 private:
  template <class T, bool FULL>
  void run_block(const ConvShape& s, const Block& block, const std::uint8_t* input, std::uint8_t* out,
                 const std::uint8_t* padding) const {
    Row<T, FULL> row;
    row.width = s.width;
    row.zero_in = zero_in_;
    row.mask = first_bytes(block.channels);
    row.multiplier = block.multiplier;
    row.zero = T::shorts(zero_out_);
    for (int q = 0; q < 4; ++q) {
      row.bias[q] = T::aligned(block.bias + q * (T::kChannels / 4));
      for (int kx = 0; kx < 3; ++kx) row.weights[kx][q] = T::aligned(block.weights + (kx * 4 + q) * T::kChannels);
    }
    for (int y = 0; y < s.out_height; ++y) {
      for (int k = 0; k < 3; ++k) {
        const int at = y * s.stride_h - s.pad_top + k;
        const bool inside = at >= 0 && at < s.height;
        row.rows[k] = inside ? input + std::ptrdiff_t(at) * s.width * s.in_pixel + block.first : padding;
        row.step[k] = inside ? s.in_pixel : 0;
      }
      std::uint8_t* to = out + std::ptrdiff_t(y) * s.out_width * s.out_pixel + block.first;
      if (s.stride_w == 1) {
        row.run(to, s.out_width, 1, s.pad_left, s.out_pixel);
      } else {
        row.run(to, s.out_width, 2, s.pad_left, s.out_pixel);
      }
    }
  }

  ConvShape s_;
  std::int32_t zero_in_, zero_out_;
  int count_ = 0;
  Block* blocks_;
  Aligned<std::int8_t> weights_;
  Aligned<std::int32_t> bias_;
  Aligned<float> multiplier_;
};

}  // namespace

ConvU8* depthwise3x3_u8_avx512vnni(const ConvU8Params& params) {
  const ConvShape& s = params.shape;
  const bool fits = s.kernel_h == 3 && s.kernel_w == 3 && s.stride_w <= 2 && !params.float_out;
  return s.depthwise() && fits && sums_fit(params) ? new Depthwise3x3(params) : nullptr;
}

}  // namespace nas
