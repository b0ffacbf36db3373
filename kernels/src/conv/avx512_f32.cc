// conv_f32 with AVX-512: the dense form in tiles of up to 12 pixels by up to 64 outputs, the depthwise form 4 pixels by
// 16 channels. Direct, channels last; only a map with padding is copied, once, into a frame of zeros.
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "../real/unary_lanes.h"
#include "conv.h"
#include "packed.h"

namespace nas {
namespace {

struct Activation {
  int code;
  float alpha, beta;
};

inline __m512 activated(__m512 x, const Activation& activation) {
  return __m512(unary_lanes(activation.code, activation.alpha, activation.beta, {{FloatPart(x)}}).part[0]);
}

inline __mmask16 first_floats(int count) { return count >= 16 ? 0xFFFF : static_cast<__mmask16>((1U << count) - 1); }

// In place, behind the tiles that wrote the values and while they are in the first-level cache.
__attribute__((noinline)) void activate(float* values, std::size_t pixels, const ConvShape& s, const Activation& activation) {
  if (activation.code == kNone || activation.code == kIdentity) return;
  const bool whole = s.outputs == s.out_pixel;
  const std::size_t runs = whole ? 1 : pixels, count = std::size_t(s.outputs) * (whole ? pixels : 1);
  for (std::size_t run = 0; run < runs; ++run, values += s.out_pixel) {
    for (std::size_t i = 0; i < count; i += 16) {
      const __mmask16 mask = count - i >= 16 ? 0xFFFF : first_floats(int(count - i));
      _mm512_mask_storeu_ps(values + i, mask, activated(_mm512_maskz_loadu_ps(mask, values + i), activation));
    }
  }
}

struct Tile {
  const float* a;
  std::ptrdiff_t lda, pitch;
  int rows, depth;
  const float* b;
  const float* bias;
  float* out;
  std::ptrdiff_t ldo;
  int columns;
};

template <int MR, int NV>
void tile(const Tile& t) {
  __m512 sums[MR][NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) sums[r][v] = _mm512_load_ps(t.bias + 16 * v);
  }
  const float* b = t.b;
  const float* row = t.a;
  const std::ptrdiff_t lda = t.lda;
  for (int ky = 0; ky < t.rows; ++ky, row += t.pitch) {
    const float* a = row;
    for (int k = 0; k < t.depth; ++k, ++a, b += 16 * NV) {
      __m512 columns[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) columns[v] = _mm512_load_ps(b + 16 * v);
#pragma GCC unroll 12
      for (int r = 0; r < MR; ++r) {
        const __m512 pixel = _mm512_set1_ps(a[r * lda]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sums[r][v] = _mm512_fmadd_ps(pixel, columns[v], sums[r][v]);
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const int left = t.columns - 16 * v;
      if (left > 0) _mm512_mask_storeu_ps(t.out + r * t.ldo + 16 * v, first_floats(left), sums[r][v]);
    }
  }
}

using TileFn = void (*)(const Tile&);
constexpr int kMostRows[5] = {0, 12, 12, 8, 6};

// Even numbers of rows above 4 keep the code small; a last tile overlaps the one before it anyway.
int rows_offered(int rows) { return rows > 4 ? rows / 2 * 2 : rows; }

template <int NV, int... MR>
TileFn pick(int rows, std::integer_sequence<int, MR...>) {
  TileFn found = nullptr;
  ((MR + 1 == rows ? void(found = tile<(MR + 1 > 4 ? (MR + 1) / 2 * 2 : MR + 1), NV>) : void()), ...);
  return found;
}

TileFn tile_for(int rows, int vectors) {
  switch (vectors) {
    case 1:
      return pick<1>(rows, std::make_integer_sequence<int, kMostRows[1]>{});
    case 2:
      return pick<2>(rows, std::make_integer_sequence<int, kMostRows[2]>{});
    case 3:
      return pick<3>(rows, std::make_integer_sequence<int, kMostRows[3]>{});
    default:
      return pick<4>(rows, std::make_integer_sequence<int, kMostRows[4]>{});
  }
}

class Framed : public ConvF32 {
 public:
  explicit Framed(const ConvF32Params& params)
      : s_(params.shape), activation_{params.activation, params.alpha, params.beta} {
    framed_ = s_.pad_top + s_.pad_bottom + s_.pad_left + s_.pad_right > 0;
    frame_w_ = s_.width + s_.pad_left + s_.pad_right;
    frame_h_ = s_.height + s_.pad_top + s_.pad_bottom;
    if (!has_lanes(activation_.code)) {
      after_ = activation_;
      activation_.code = kNone;
    }
  }
  std::size_t scratch_bytes() const override {
    return framed_ ? (std::size_t(frame_w_) * frame_h_ * s_.channels + 16) * sizeof(float) : 0;
  }
  void run(const ConvShape& s, const float* input, float* output, std::uint8_t* scratch) const override {
    const std::size_t pixels = std::size_t(s.out_height) * s.out_width;
    const std::size_t image = std::size_t(s.height) * s.width * s.in_pixel, out_image = pixels * s.out_pixel;
    for (int n = 0; n < s.batch; ++n, input += image, output += out_image) {
      if (framed_) {
        frame(s, input, reinterpret_cast<float*>(scratch));
        run_map({reinterpret_cast<float*>(scratch), s.channels, std::ptrdiff_t(frame_w_) * s.channels}, s, output);
      } else {
        run_map({input, s.in_pixel, std::ptrdiff_t(s.width) * s.in_pixel}, s, output);
      }
      for (std::size_t pixel = 0; after_.code != kNone && pixel < pixels; ++pixel) {
        float* to = output + pixel * s.out_pixel;
        unary_row(after_.code, after_.alpha, after_.beta, to, std::size_t(s.outputs), to);
      }
    }
  }

 protected:
  // What the windows read: the input or a frame; elements between its pixels and rows.
  struct Map {
    const float* at;
    std::ptrdiff_t pixel, pitch;
  };
  virtual void run_map(const Map& map, const ConvShape& s, float* output) const = 0;

  ConvShape s_;
  Activation activation_, after_{kNone, 0.0F, 0.0F};

 private:
  void frame(const ConvShape& s, const float* input, float* to) const {
    const std::size_t row = std::size_t(frame_w_) * s.channels, line = std::size_t(s.width) * s.channels;
    const std::size_t left = std::size_t(s.pad_left) * s.channels, right = std::size_t(s.pad_right) * s.channels;
    std::size_t gap = row * s.pad_top + left;
    for (int y = 0; y < s.height; ++y) {
      std::memset(to, 0, gap * sizeof(float));
      to += gap;
      if (s.in_pixel == s.channels) {
        std::memcpy(to, input, line * sizeof(float));
      } else {
        for (int x = 0; x < s.width; ++x) std::memcpy(to + x * s.channels, input + x * s.in_pixel, s.channels * sizeof(float));
      }
      input += std::size_t(s.width) * s.in_pixel;
      to += line;
      gap = right + left;
    }
    std::memset(to, 0, (right + row * s.pad_bottom) * sizeof(float));
  }

  bool framed_;
  int frame_w_, frame_h_;
};

class Dense final : public Framed {
 public:
  explicit Dense(const ConvF32Params& params) : Framed(params) {
    depth_ = s_.kernel_w * s_.channels;
    const int total = (s_.outputs + 15) / 16;
    const std::size_t group = std::size_t(s_.kernel_h) * depth_ * 16;
    weights_ = Aligned<float>(group * total);
    bias_ = Aligned<float>(std::size_t(16) * total);
    for (int output = 0; output < s_.outputs; ++output) bias_[output] = params.bias[output];
    for (int done = 0; done < total;) {
      const int vectors = Panels::next_width(total - done, total);
      float* packed = weights_ + group * done;
      for (int column = 0; column < 16 * vectors && 16 * done + column < s_.outputs; ++column) {
        const float* from = params.weights + std::size_t(16 * done + column) * s_.kernel_h * depth_;
        for (std::size_t k = 0; k < std::size_t(s_.kernel_h) * depth_; ++k) packed[k * 16 * vectors + column] = from[k];
      }
      done += vectors;
    }
    flat_ = s_.kernel_h == 1 && s_.kernel_w == 1 && s_.stride_h == 1 && s_.stride_w == 1 &&
            s_.pad_top + s_.pad_bottom + s_.pad_left + s_.pad_right == 0;
  }
  const char* kernel() const override { return "conv_f32_12x64_avx512"; }

 private:
  void run_map(const Map& map, const ConvShape& s, float* output) const override {
    const int lines = flat_ ? 1 : s.out_height, width = flat_ ? s.height * s.width : s.out_width;
    const int total = (s_.outputs + 15) / 16;
    const std::size_t group = std::size_t(s_.kernel_h) * depth_ * 16;
    Tile t{};
    t.lda = (flat_ ? 1 : s.stride_w) * map.pixel;
    t.pitch = map.pitch;
    t.rows = s.kernel_h;
    t.depth = depth_;
    t.ldo = s.out_pixel;
    // Pieces of a long run that stay in the first-level cache while all panels pass.
    const int piece = flat_ && std::int64_t(width) * depth_ > 6144 ? (6144 / depth_ > 24 ? 6144 / depth_ : 24) : width;
    for (int y = 0; y < lines; ++y) {
      for (int start = 0; start < width;) {
        const int count = width - start < piece + 12 ? width - start : piece;
        for (int done = 0; done < total;) {
          const int vectors = Panels::next_width(total - done, total);
          const int most = kMostRows[vectors] < count ? kMostRows[vectors] : count;
          // Balanced; where an odd number became even there may be one tile more.
          const int balanced = (count + most - 1) / most;
          const int rows = rows_offered((count + balanced - 1) / balanced), tiles = (count + rows - 1) / rows;
          const TileFn run = tile_for(rows, vectors);
          t.b = weights_ + group * done;
          t.bias = bias_ + 16 * done;
          t.columns = s_.outputs - 16 * done < 16 * vectors ? s_.outputs - 16 * done : 16 * vectors;
          for (int i = 0; i < tiles; ++i) {
            const int first = start + (i * rows < count - rows ? i * rows : count - rows);
            t.a = map.at + std::ptrdiff_t(y) * s.stride_h * t.pitch + first * t.lda;
            t.out = output + (std::ptrdiff_t(y) * width + first) * s.out_pixel + 16 * done;
            run(t);
          }
          done += vectors;
        }
        activate(output + (std::ptrdiff_t(y) * width + start) * s.out_pixel, std::size_t(count), s, activation_);
        start += count;
      }
    }
  }

  int depth_;
  bool flat_;
  Aligned<float> weights_, bias_;
};

class Depthwise final : public Framed {
 public:
  explicit Depthwise(const ConvF32Params& params) : Framed(params) {
    blocks_ = (s_.channels + 15) / 16;
    taps_ = s_.kernel_h * s_.kernel_w;
    weights_ = Aligned<float>(std::size_t(16) * taps_ * blocks_);
    bias_ = Aligned<float>(std::size_t(16) * blocks_);
    for (int c = 0; c < s_.channels; ++c) {
      bias_[c] = params.bias[c];
      for (int k = 0; k < taps_; ++k) weights_[(std::size_t(c / 16) * taps_ + k) * 16 + c % 16] = params.weights[std::size_t(c) * taps_ + k];
    }
  }
  const char* kernel() const override { return "depthwise_f32_4x16_avx512"; }

 private:
  void run_map(const Map& map, const ConvShape& s, float* output) const override {
    for (int block = 0; block < blocks_; ++block) {
      const __mmask16 mask = first_floats(s.channels - 16 * block);
      for (int y = 0; y < s.out_height; ++y) {
        const Map from{map.at + std::ptrdiff_t(y) * s.stride_h * map.pitch + 16 * block, map.pixel, map.pitch};
        float* to = output + std::ptrdiff_t(y) * s.out_width * s.out_pixel + 16 * block;
        int x = 0;
        for (; x + 4 <= s.out_width; x += 4) pixels<4>(from, to, x, block, mask);
        for (; x < s.out_width; ++x) pixels<1>(from, to, x, block, mask);
      }
    }
  }

  template <int N>
  void pixels(const Map& from, float* to, int x, int block, __mmask16 mask) const {
    const std::ptrdiff_t step = s_.stride_w * from.pixel;
    const float* weights = weights_ + std::size_t(16) * taps_ * block;
    __m512 sums[N];
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) sums[i] = _mm512_load_ps(bias_ + 16 * block);
    for (int ky = 0; ky < s_.kernel_h; ++ky) {
      const float* at = from.at + ky * from.pitch + x * step;
      for (int kx = 0; kx < s_.kernel_w; ++kx, at += from.pixel, weights += 16) {
        const __m512 weight = _mm512_load_ps(weights);
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) sums[i] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, at + i * step), weight, sums[i]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      _mm512_mask_storeu_ps(to + std::ptrdiff_t(x + i) * s_.out_pixel, mask, activated(sums[i], activation_));
    }
  }

  int blocks_, taps_;
  Aligned<float> weights_, bias_;
};

}  // namespace

ConvF32* conv_f32_avx512(const ConvF32Params& params) {
  if (params.shape.depthwise()) return new Depthwise(params);
  return params.shape.groups == 1 ? new Dense(params) : nullptr;
}

}  // namespace nas
