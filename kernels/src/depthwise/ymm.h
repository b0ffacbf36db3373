// Depthwise convolution on vectors of 256 bits: a block of channels of one pixel at a time, taps of the window in groups that one
// product sums. `T` gives the product:
//   kBlock, kTaps, Weight                       channels of a block, taps of a group, what packed weights hold
//   int place(int channel)                      where the sum of a block's channel is: vector * 8 + lane
//   void multiply(const uint8_t* const* taps, const Weight*, __m256i* sums)
//   void store(const __m256i* scaled, __m256i zero, uint8_t* out)       kBlock bytes
// Internal linkage: included by files for one ISA each.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "../conv/conv.h"
#include "../conv/packed.h"

namespace nas {
namespace {

template <class T>
class YmmDepthwise final : public ConvU8 {
 public:
  YmmDepthwise(const ConvU8Params& params, const char* kernel)
      : s_(params.shape), zero_in_(params.zero_in), zero_out_(params.zero_out), kernel_(kernel) {
    blocks_ = (s_.channels + kBlock - 1) / kBlock;
    padded_ = blocks_ * kBlock;
    const int taps = s_.kernel_h * s_.kernel_w;
    groups_ = (taps + T::kTaps - 1) / T::kTaps;
    frame_w_ = s_.width + s_.pad_left + s_.pad_right;
    frame_h_ = s_.height + s_.pad_top + s_.pad_bottom;
    weights_ = Aligned<typename T::Weight>(std::size_t(groups_) * T::kTaps * padded_);
    bias_ = Aligned<std::int32_t>(padded_);
    multiplier_ = Aligned<float>(padded_);
    // Taps that fill up the last group have weights of 0 and are read at the first.
    offsets_ = Aligned<std::ptrdiff_t>(std::size_t(groups_) * T::kTaps);
    for (int k = 0; k < taps; ++k) {
      offsets_[k] = (std::ptrdiff_t(k / s_.kernel_w) * frame_w_ + k % s_.kernel_w) * padded_;
    }
    for (int c = 0; c < s_.channels; ++c) {
      const int place = T::place(c % kBlock), block = c / kBlock;
      bias_[block * kBlock + place] = params.bias[c];
      multiplier_[block * kBlock + place] = params.multiplier[c];
      for (int k = 0; k < taps; ++k) {
        const std::size_t group = std::size_t(block) * groups_ + k / T::kTaps;
        weights_[(group * kBlock + place) * T::kTaps + k % T::kTaps] = params.weights[std::size_t(c) * taps + k];
      }
    }
  }

  const char* kernel() const override { return kernel_; }
  std::size_t scratch_bytes() const override { return std::size_t(frame_w_) * frame_h_ * padded_ + 64; }

  void run(const ConvShape& s, const std::uint8_t* input, void* output, std::uint8_t* scratch) const override {
    std::uint8_t* out = static_cast<std::uint8_t*>(output);
    for (int n = 0; n < s.batch; ++n) {
      fill(s, input, scratch);
      input += std::size_t(s.height) * s.width * s.in_pixel;
      for (int y = 0; y < s.out_height; ++y) {
        for (int x = 0; x < s.out_width; ++x, out += s.out_pixel) {
          const std::uint8_t* from = scratch + (std::size_t(y) * s.stride_h * frame_w_ + std::size_t(x) * s.stride_w) * padded_;
          for (int block = 0; block < blocks_; ++block) pixel(from + block * kBlock, out + block * kBlock, block);
        }
      }
    }
  }

 private:
  static constexpr int kBlock = T::kBlock, kVectors = T::kBlock / 8;

  void fill(const ConvShape& s, const std::uint8_t* input, std::uint8_t* frame) const {
    std::memset(frame, zero_in_, std::size_t(frame_w_) * (s.height + s.pad_top + s.pad_bottom) * padded_);
    for (int y = 0; y < s.height; ++y) {
      std::uint8_t* to = frame + (std::size_t(y + s.pad_top) * frame_w_ + s.pad_left) * padded_;
      for (int x = 0; x < s.width; ++x, input += s.in_pixel, to += padded_) std::memcpy(to, input, s.channels);
    }
  }

  void pixel(const std::uint8_t* from, std::uint8_t* out, int block) const {
    const typename T::Weight* weights = weights_ + std::size_t(block) * groups_ * T::kTaps * kBlock;
    const std::ptrdiff_t* offsets = offsets_;
    __m256i sums[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sums[v] = _mm256_load_si256(reinterpret_cast<const __m256i*>(bias_ + block * kBlock + 8 * v));
    }
    for (int group = 0; group < groups_; ++group, offsets += T::kTaps, weights += T::kTaps * kBlock) {
      const std::uint8_t* taps[T::kTaps];
#pragma GCC unroll 4
      for (int k = 0; k < T::kTaps; ++k) taps[k] = from + offsets[k];
      T::multiply(taps, weights, sums);
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const __m256 multiplier = _mm256_load_ps(multiplier_ + block * kBlock + 8 * v);
      sums[v] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(sums[v]), multiplier));
    }
    const __m256i zero = _mm256_set1_epi16(short(zero_out_));
    const int left = s_.channels - block * kBlock;
    if (left >= kBlock) {
      T::store(sums, zero, out);
      return;
    }
    std::uint8_t kept[kBlock];
    T::store(sums, zero, kept);
    std::memcpy(out, kept, left);
  }

  ConvShape s_;
  std::int32_t zero_in_, zero_out_;
  const char* kernel_;
  int blocks_, padded_, groups_, frame_w_, frame_h_;
  Aligned<typename T::Weight> weights_;
  Aligned<std::int32_t> bias_;
  Aligned<float> multiplier_;
  Aligned<std::ptrdiff_t> offsets_;
};

}  // namespace
}  // namespace nas
