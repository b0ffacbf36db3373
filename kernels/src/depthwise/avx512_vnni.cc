// Depthwise convolution with AVX512-VNNI, 16 channels at a time, windows up to 8 wide.
//
// Each input row is rewritten once: for every pixel, each channel's byte with those of the next three pixels, 4 bytes
// that one vpdpbusd sums against 4 weights of a window's row. The rows of a window stay in a ring in the first-level
// cache, and are used by all kernel_h output rows that read them.
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "../conv/conv.h"
#include "../conv/packed.h"
#include "../requantize/avx512.h"

namespace nas {
namespace {

constexpr int kBlock = 16;
constexpr int kAhead = 4;  // outputs computed together

// Adds `rows` times `groups` products to kAhead neighbouring outputs.
template <int GROUPS, int KH>
inline void window_sums(__m512i* sums, const std::uint8_t* const* rows, const std::int8_t* weights, std::ptrdiff_t step) {
#pragma GCC unroll 7
  for (int ky = 0; ky < KH; ++ky) {
#pragma GCC unroll 2
    for (int g = 0; g < GROUPS; ++g) {
      const __m512i weight = _mm512_load_si512(weights + (ky * GROUPS + g) * 64);
      const std::uint8_t* at = rows[ky] + g * 256;
#pragma GCC unroll 4
      for (int i = 0; i < kAhead; ++i) sums[i] = dot(sums[i], _mm512_load_si512(at + i * step), weight);
    }
  }
}

class Depthwise final : public ConvU8 {
 public:
  explicit Depthwise(const ConvU8Params& params)
      : s_(params.shape), zero_in_(params.zero_in), zero_out_(params.zero_out) {
    groups_ = (s_.kernel_w + 3) / 4;
    blocks_ = (s_.channels + kBlock - 1) / kBlock;
    // Positions at which a window's group may start, for outputs rounded up to kAhead.
    const int outputs = (s_.out_width + kAhead - 1) / kAhead * kAhead;
    positions_ = (outputs - 1) * s_.stride_w + 4 * (groups_ - 1) + 1;
    row_bytes_ = std::size_t(positions_) * 64;
    const std::size_t taps = std::size_t(s_.kernel_h) * groups_ * 64;
    weights_ = Aligned<std::int8_t>(taps * blocks_);
    bias_ = Aligned<std::int32_t>(std::size_t(kBlock) * blocks_);
    multiplier_ = Aligned<float>(std::size_t(kBlock) * blocks_);
    for (int c = 0; c < s_.channels; ++c) {
      bias_[c] = params.bias[c];
      multiplier_[c] = params.multiplier[c];
      std::int8_t* block = weights_ + taps * (c / kBlock);
      for (int ky = 0; ky < s_.kernel_h; ++ky) {
        for (int kx = 0; kx < s_.kernel_w; ++kx) {
          block[(ky * groups_ + kx / 4) * 64 + 4 * (c % kBlock) + kx % 4] =
              params.weights[(std::size_t(c) * s_.kernel_h + ky) * s_.kernel_w + kx];
        }
      }
    }
  }

  const char* kernel() const override { return "depthwise_u8s8u8_4x16_avx512vnni"; }
  std::size_t scratch_bytes() const override { return row_bytes_ * (s_.kernel_h + 1) + 64; }

  void run(const ConvShape& s, const std::uint8_t* input, void* output, std::uint8_t* scratch) const override {
    std::uint8_t* out = static_cast<std::uint8_t*>(output);
    // One row of padding serves every row outside the map.
    std::memset(scratch, zero_in_, row_bytes_);
    const std::size_t image = std::size_t(s.height) * s.width * s.in_pixel;
    const std::size_t out_image = std::size_t(s.out_height) * s.out_width * s.out_pixel;
    for (int n = 0; n < s.batch; ++n) {
      for (int block = 0; block < blocks_; ++block) {
        run_block(s, input + n * image, out + n * out_image, scratch, block);
      }
    }
  }

 private:
  void run_block(const ConvShape& s, const std::uint8_t* input, std::uint8_t* output, std::uint8_t* scratch, int block) const {
    const int left = s.channels - block * kBlock;
    const __mmask16 mask = left >= kBlock ? 0xFFFF : static_cast<__mmask16>((1U << left) - 1);
    const std::uint8_t* from = input + block * kBlock;
    std::uint8_t* ring = scratch + row_bytes_;
    const std::uint8_t* rows[8];
    int ready = 0;  // rows of the map that lie in the ring
    for (int y = 0; y < s.out_height; ++y) {
      const int top = y * s.stride_h - s.pad_top;
      const int end = top + s.kernel_h < s.height ? top + s.kernel_h : s.height;
      if (ready < top) ready = top;
      for (; ready < end; ++ready) {
        interleave(from + std::ptrdiff_t(ready) * s.width * s.in_pixel, ring + row_bytes_ * (ready % s.kernel_h), mask);
      }
      for (int ky = 0; ky < s.kernel_h; ++ky) {
        const int row = top + ky;
        rows[ky] = row < 0 || row >= s.height ? scratch : ring + row_bytes_ * (row % s.kernel_h);
      }
      std::uint8_t* to = output + std::ptrdiff_t(y) * s.out_width * s.out_pixel + block * kBlock;
      run_row(rows, to, block, mask);
    }
  }

  // For each position 4 bytes per channel: this pixel's and the next three's.
  void interleave(const std::uint8_t* row, std::uint8_t* to, __mmask16 mask) const {
    const __m512i padding = _mm512_set1_epi32(zero_in_);
    const __m512i padding_top = _mm512_slli_epi32(padding, 24);
    __m512i four = _mm512_set1_epi8(char(zero_in_));
    int x = 3 - s_.pad_left;  // column whose byte comes in next, the last of position 0
    for (int column = -s_.pad_left; column < x; ++column) four = push(four, row, column, mask, padding_top);
    int position = 0;
    for (; position < positions_ && x < 0; ++position, ++x) {
      four = _mm512_or_si512(_mm512_srli_epi32(four, 8), padding_top);
      _mm512_store_si512(to + std::size_t(position) * 64, four);
    }
    const std::uint8_t* pixel = row + std::ptrdiff_t(x) * s_.in_pixel;
    for (; position < positions_ && x < s_.width; ++position, ++x, pixel += s_.in_pixel) {
      const __m512i next = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, pixel));
      four = _mm512_or_si512(_mm512_srli_epi32(four, 8), _mm512_slli_epi32(next, 24));
      _mm512_store_si512(to + std::size_t(position) * 64, four);
    }
    for (; position < positions_; ++position) {
      four = _mm512_or_si512(_mm512_srli_epi32(four, 8), padding_top);
      _mm512_store_si512(to + std::size_t(position) * 64, four);
    }
  }

  __m512i push(__m512i four, const std::uint8_t* row, int column, __mmask16 mask, __m512i padding_top) const {
    __m512i top = padding_top;
    if (column >= 0 && column < s_.width) {
      const __m128i pixel = _mm_maskz_loadu_epi8(mask, row + std::ptrdiff_t(column) * s_.in_pixel);
      top = _mm512_slli_epi32(_mm512_cvtepu8_epi32(pixel), 24);
    }
    return _mm512_or_si512(_mm512_srli_epi32(four, 8), top);
  }

  void run_row(const std::uint8_t* const* rows, std::uint8_t* to, int block, __mmask16 mask) const {
    const std::int8_t* weights = weights_ + std::size_t(s_.kernel_h) * groups_ * 64 * block;
    if (s_.kernel_h == s_.kernel_w && s_.kernel_h == 3) return run_outputs<1, 3>(rows, to, weights, block, mask);
    if (s_.kernel_h == s_.kernel_w && s_.kernel_h == 5) return run_outputs<2, 5>(rows, to, weights, block, mask);
    if (s_.kernel_h == s_.kernel_w && s_.kernel_h == 7) return run_outputs<2, 7>(rows, to, weights, block, mask);
    return run_outputs<0, 0>(rows, to, weights, block, mask);
  }

  template <int GROUPS, int KH>
  void run_outputs(const std::uint8_t* const* rows, std::uint8_t* to, const std::int8_t* weights, int block,
                   __mmask16 mask) const {
    const std::ptrdiff_t step = std::ptrdiff_t(s_.stride_w) * 64;
    const __m512i bias = _mm512_load_si512(bias_ + kBlock * block);
    const __m512i zero = _mm512_set1_epi16(short(zero_out_));
    const float* multiplier = multiplier_ + kBlock * block;
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const std::uint8_t* at[8];
    for (int ky = 0; ky < s_.kernel_h; ++ky) at[ky] = rows[ky];
    for (int x = 0; x < s_.out_width; x += kAhead) {
      __m512i sums[kAhead] = {bias, bias, bias, bias};
      if constexpr (KH > 0) {
        window_sums<GROUPS, KH>(sums, at, weights, step);
      } else {
        for (int ky = 0; ky < s_.kernel_h; ++ky) {
          for (int g = 0; g < groups_; ++g) {
            const __m512i weight = _mm512_load_si512(weights + (ky * groups_ + g) * 64);
            const std::uint8_t* from = at[ky] + g * 256;
#pragma GCC unroll 4
            for (int i = 0; i < kAhead; ++i) sums[i] = dot(sums[i], _mm512_load_si512(from + i * step), weight);
          }
        }
      }
      for (int ky = 0; ky < (KH > 0 ? KH : s_.kernel_h); ++ky) at[ky] += kAhead * step;
      const __m512i low = _mm512_packs_epi32(scaled(sums[0], multiplier), scaled(sums[1], multiplier));
      const __m512i high = _mm512_packs_epi32(scaled(sums[2], multiplier), scaled(sums[3], multiplier));
      const __m512i packed = _mm512_packus_epi16(_mm512_adds_epi16(low, zero), _mm512_adds_epi16(high, zero));
      // Packing interleaves the four outputs within lanes; afterwards each has its 16 channels in one lane.
      const __m512i bytes = _mm512_permutexvar_epi32(order, packed);
      const int left = s_.out_width - x;
      _mm_mask_storeu_epi8(to, mask, _mm512_castsi512_si128(bytes));
      if (left > 1) _mm_mask_storeu_epi8(to + s_.out_pixel, mask, _mm512_extracti32x4_epi32(bytes, 1));
      if (left > 2) _mm_mask_storeu_epi8(to + 2 * s_.out_pixel, mask, _mm512_extracti32x4_epi32(bytes, 2));
      if (left > 3) _mm_mask_storeu_epi8(to + 3 * s_.out_pixel, mask, _mm512_extracti32x4_epi32(bytes, 3));
      to += kAhead * s_.out_pixel;
    }
  }

  ConvShape s_;
  std::int32_t zero_in_, zero_out_;
  int groups_ = 0, blocks_ = 0, positions_ = 0;
  std::size_t row_bytes_ = 0;
  Aligned<std::int8_t> weights_;
  Aligned<std::int32_t> bias_;
  Aligned<float> multiplier_;
};

}  // namespace

ConvU8* depthwise_u8_avx512vnni(const ConvU8Params& params) {
  const ConvShape& s = params.shape;
  if (!s.depthwise() || params.float_out || s.kernel_w > 8 || s.kernel_h > 8 || !sums_fit(params)) return nullptr;
  if (s.pad_left > 8 || s.pad_top >= s.kernel_h + s.height) return nullptr;
  return new Depthwise(params);
}

}  // namespace nas
