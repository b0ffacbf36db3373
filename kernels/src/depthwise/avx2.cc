// Depthwise convolution with AVX2: 16 channels at a time, two taps of the window to a product of 16-bit pairs.
#include <immintrin.h>

#include <cstring>

#include "../conv/conv.h"
#include "../conv/packed.h"

namespace nas {
namespace {

constexpr int kBlock = 16;

class Depthwise final : public ConvU8 {
 public:
  explicit Depthwise(const ConvU8Params& params)
      : s_(params.shape), zero_in_(params.zero_in), zero_out_(params.zero_out) {
    blocks_ = (s_.channels + kBlock - 1) / kBlock;
    padded_ = blocks_ * kBlock;
    taps_ = s_.kernel_h * s_.kernel_w;
    pairs_ = (taps_ + 1) / 2;
    frame_w_ = s_.width + s_.pad_left + s_.pad_right;
    frame_h_ = s_.height + s_.pad_top + s_.pad_bottom;
    weights_ = Aligned<std::int16_t>(std::size_t(pairs_) * 2 * padded_);
    bias_ = Aligned<std::int32_t>(padded_);
    multiplier_ = Aligned<float>(padded_);
    for (int c = 0; c < s_.channels; ++c) {
      const int place = in_order(c);
      bias_[place] = params.bias[c];
      multiplier_[place] = params.multiplier[c];
      for (int k = 0; k < taps_; ++k) {
        const std::size_t pair = std::size_t(c / kBlock) * pairs_ + k / 2;
        weights_[(pair * kBlock + place % kBlock) * 2 + k % 2] = params.weights[std::size_t(c) * taps_ + k];
      }
    }
  }

  const char* kernel() const override { return "depthwise_u8s8u8_1x16_avx2"; }
  std::size_t scratch_bytes() const override { return std::size_t(frame_w_) * frame_h_ * padded_ + 64; }

  void run(const std::uint8_t* input, void* output, std::uint8_t* scratch) const override {
    std::uint8_t* out = static_cast<std::uint8_t*>(output);
    for (int n = 0; n < s_.batch; ++n) {
      fill(input, scratch);
      input += std::size_t(s_.height) * s_.width * s_.channels;
      for (int y = 0; y < s_.out_height; ++y) {
        for (int x = 0; x < s_.out_width; ++x, out += s_.channels) {
          const std::uint8_t* from = scratch + (std::size_t(y) * s_.stride_h * frame_w_ + std::size_t(x) * s_.stride_w) * padded_;
          for (int block = 0; block < blocks_; ++block) pixel(from + block * kBlock, out + block * kBlock, block);
        }
      }
    }
  }

 private:
  // Unpacking works within lanes of 8 channels: the first vector of sums has channels 0-3 and 8-11.
  static int in_order(int channel) {
    const int c = channel % kBlock;
    return channel - c + (c & 4 ? 8 : 0) + (c & 8 ? 4 : 0) + (c & 3);
  }

  void fill(const std::uint8_t* input, std::uint8_t* frame) const {
    std::memset(frame, zero_in_, std::size_t(frame_w_) * frame_h_ * padded_);
    for (int y = 0; y < s_.height; ++y) {
      std::uint8_t* to = frame + (std::size_t(y + s_.pad_top) * frame_w_ + s_.pad_left) * padded_;
      for (int x = 0; x < s_.width; ++x, input += s_.channels, to += padded_) std::memcpy(to, input, s_.channels);
    }
  }

  __m256i tap(const std::uint8_t* from, int k) const {
    const std::uint8_t* at = from + (std::size_t(k / s_.kernel_w) * frame_w_ + k % s_.kernel_w) * padded_;
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  }

  static __m256i aligned(const void* from) { return _mm256_load_si256(static_cast<const __m256i*>(from)); }

  __m256i scaled(__m256i sum, int place) const {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_load_ps(multiplier_ + place)));
  }

  void pixel(const std::uint8_t* from, std::uint8_t* out, int block) const {
    const std::int16_t* weights = weights_ + std::size_t(block) * pairs_ * 2 * kBlock;
    __m256i low = aligned(bias_ + block * kBlock), high = aligned(bias_ + block * kBlock + 8);
    for (int pair = 0; pair < pairs_; ++pair, weights += 2 * kBlock) {
      const __m256i first = tap(from, 2 * pair);
      const __m256i second = 2 * pair + 1 < taps_ ? tap(from, 2 * pair + 1) : _mm256_setzero_si256();
      low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(first, second), aligned(weights)));
      high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(first, second), aligned(weights + kBlock)));
    }
    const __m256i both = _mm256_packs_epi32(scaled(low, block * kBlock), scaled(high, block * kBlock + 8));
    const __m256i shifted = _mm256_adds_epi16(both, _mm256_set1_epi16(short(zero_out_)));
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(shifted), _mm256_extracti128_si256(shifted, 1));
    const int left = s_.channels - block * kBlock;
    if (left >= kBlock) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
      return;
    }
    alignas(16) std::uint8_t kept[kBlock];
    _mm_store_si128(reinterpret_cast<__m128i*>(kept), bytes);
    std::memcpy(out, kept, left);
  }

  ConvShape s_;
  std::int32_t zero_in_, zero_out_;
  int blocks_, padded_, taps_, pairs_, frame_w_, frame_h_;
  Aligned<std::int16_t> weights_;
  Aligned<std::int32_t> bias_;
  Aligned<float> multiplier_;
};

}  // namespace

ConvU8* depthwise_u8_avx2(const ConvU8Params& params) {
  if (!params.shape.depthwise() || params.float_out || !sums_fit(params)) return nullptr;
  return new Depthwise(params);
}

}  // namespace nas
