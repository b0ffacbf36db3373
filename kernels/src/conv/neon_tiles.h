// A dense convolution with NEON's products of four bytes: tiles of up to 5 pixels by 16, 4 by 24 or 3 by 32 outputs.
//
// Channels lie last, so a row of the window is one run of bytes. A pixel's bytes are loaded 16 at a time and multiplied lane
// by lane, which costs one load per 4 groups instead of one each. `T` gives the product:
//   Bytes load(const uint8_t*)                                16 activations as the product takes them
//   int32x4_t dot<LANE>(int32x4_t sum, int8x16_t w, Bytes)     4 outputs by 4 bytes
//   kShift                                                    what an activation is lower than the byte it stands for
// Internal linkage: included by files for one ISA each.
#pragma once

#include <cstring>

#include "../requantize/neon.h"
#include "conv.h"
#include "packed.h"

namespace nas {
namespace {

struct Tile {
  const std::uint8_t* a;  // first pixel of the first output's window
  std::ptrdiff_t lda;     // bytes between neighbouring outputs' windows
  std::ptrdiff_t pitch;   // bytes between rows of the window
  int rows, depth4;       // runs, and groups of 4 bytes in one
  const std::int8_t* b;
  const std::int32_t* bias;
  const float* multiplier;
  std::uint8_t* out;
  std::ptrdiff_t ldo;
  int16x8_t zero;
  int columns;
};

// The next weights: one instruction that moves on, which the compiler would not use by itself.
inline int8x16x4_t next_four(const std::int8_t*& b) {
  int8x16x4_t w;
  asm("ld1 {%S0.16b-%V0.16b}, [%1], #64" : "=w"(w), "+r"(b) : "m"(*reinterpret_cast<const std::int8_t(*)[64]>(b)));
  return w;
}

inline int8x16x3_t next_three(const std::int8_t*& b) {
  int8x16x3_t w;
  asm("ld1 {%S0.16b-%U0.16b}, [%1], #48" : "=w"(w), "+r"(b) : "m"(*reinterpret_cast<const std::int8_t(*)[48]>(b)));
  return w;
}

// One group of 4 bytes of each row.
template <class T, int ROWS, int VECTORS, int LANE>
inline void multiply(int32x4_t (&sums)[ROWS][VECTORS], const typename T::Bytes* x, const std::int8_t*& b) {
  constexpr int kAtOnce = VECTORS % 4 == 0 ? 4 : 3;
#pragma GCC unroll 2
  for (int first = 0; first < VECTORS; first += kAtOnce) {
    const auto w = [&] {
      if constexpr (kAtOnce == 4) return next_four(b);
      else return next_three(b);
    }();
#pragma GCC unroll 5
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kAtOnce; ++v) sums[r][first + v] = T::template dot<LANE>(sums[r][first + v], w.val[v], x[r]);
    }
  }
}

// Vectors v to v + 3 of all rows, or v and v + 1 where no more are there.
template <int ROWS, int VECTORS>
inline void store_bytes(std::uint8_t* out, std::ptrdiff_t ldo, const int32x4_t (&sums)[ROWS][VECTORS], int v,
                        const float* multiplier, int16x8_t zero) {
  const bool four = VECTORS - v >= 4;
  const float32x4_t m0 = vld1q_f32(multiplier), m1 = vld1q_f32(multiplier + 4);
  const float32x4_t m2 = four ? vld1q_f32(multiplier + 8) : m0, m3 = four ? vld1q_f32(multiplier + 12) : m1;
#pragma GCC unroll 5
  for (int r = 0; r < ROWS; ++r) {
    const int32x4_t a = rescaled(sums[r][v], m0), b = rescaled(sums[r][v + 1], m1);
    if (four) {
      vst1q_u8(out + r * ldo, narrowed(a, b, rescaled(sums[r][v + 2], m2), rescaled(sums[r][v + 3], m3), zero));
    } else {
      vst1_u8(out + r * ldo, vqmovun_s16(vqaddq_s16(vqmovn_high_s32(vqmovn_s32(a), b), zero)));
    }
  }
}

template <class T, int ROWS, int VECTORS, bool FLOAT>
void tile(const Tile& t) {
  int32x4_t sums[ROWS][VECTORS];
#pragma GCC unroll 8
  for (int v = 0; v < VECTORS; ++v) {
    const int32x4_t bias = vld1q_s32(t.bias + 4 * v);
#pragma GCC unroll 5
    for (int r = 0; r < ROWS; ++r) sums[r][v] = bias;
  }
  const std::int8_t* b = t.b;
  const std::uint8_t* row = t.a;
  typename T::Bytes x[ROWS];
  for (int ky = 0; ky < t.rows; ++ky, row += t.pitch) {
    const std::uint8_t* a = row;
    int k = t.depth4;
    for (; k >= 4; k -= 4, a += 16) {
#pragma GCC unroll 5
      for (int r = 0; r < ROWS; ++r) x[r] = T::load(a + r * t.lda);
      multiply<T, ROWS, VECTORS, 0>(sums, x, b);
      multiply<T, ROWS, VECTORS, 1>(sums, x, b);
      multiply<T, ROWS, VECTORS, 2>(sums, x, b);
      multiply<T, ROWS, VECTORS, 3>(sums, x, b);
    }
    if (k == 0) continue;
    // What is read beyond a run meets weights of zero, or no product at all.
#pragma GCC unroll 5
    for (int r = 0; r < ROWS; ++r) x[r] = T::load(a + r * t.lda);
    multiply<T, ROWS, VECTORS, 0>(sums, x, b);
    if (k > 1) multiply<T, ROWS, VECTORS, 1>(sums, x, b);
    if (k > 2) multiply<T, ROWS, VECTORS, 2>(sums, x, b);
  }
  const bool whole = t.columns == 4 * VECTORS;
  alignas(16) std::uint8_t kept[ROWS][VECTORS * (FLOAT ? 16 : 4)];
  std::uint8_t* const out = whole ? t.out : kept[0];
  const std::ptrdiff_t ldo = whole ? t.ldo : std::ptrdiff_t(sizeof(kept[0]));
  if constexpr (FLOAT) {
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) {
      const float32x4_t multiplier = vld1q_f32(t.multiplier + 4 * v);
#pragma GCC unroll 5
      for (int r = 0; r < ROWS; ++r) {
        vst1q_f32(reinterpret_cast<float*>(out + r * ldo) + 4 * v, vmulq_f32(vcvtq_f32_s32(sums[r][v]), multiplier));
      }
    }
  } else {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v += 4) {
      store_bytes<ROWS, VECTORS>(out + 4 * v, ldo, sums, v, t.multiplier + 4 * v, t.zero);
    }
  }
  if (!whole) {
    for (int r = 0; r < ROWS; ++r) std::memcpy(t.out + r * t.ldo, kept[r], std::size_t(t.columns) * (FLOAT ? 4 : 1));
  }
}

using TileFn = void (*)(const Tile&);

constexpr int most_rows(int vectors) { return vectors == 8 ? 3 : vectors == 6 ? 4 : 5; }

template <class T, int VECTORS, bool FLOAT>
TileFn tile_of_rows(int rows) {
  constexpr int kMost = most_rows(VECTORS);
  switch (rows) {
    case 1:
      return tile<T, 1, VECTORS, FLOAT>;
    case 2:
      return tile<T, 2, VECTORS, FLOAT>;
    case 3:
      return tile<T, 3, VECTORS, FLOAT>;
    case 4:
      return tile<T, kMost < 4 ? kMost : 4, VECTORS, FLOAT>;
    default:
      return tile<T, kMost < 5 ? kMost : 5, VECTORS, FLOAT>;
  }
}

template <class T, bool FLOAT>
TileFn tile_for(int rows, int vectors) {
  return vectors == 8   ? tile_of_rows<T, 8, FLOAT>(rows)
         : vectors == 6 ? tile_of_rows<T, 6, FLOAT>(rows)
                        : tile_of_rows<T, 4, FLOAT>(rows);
}

template <class T>
class TiledConv final : public ConvU8 {
 public:
  TiledConv(const ConvU8Params& params, const char* kernel)
      : s_(params.shape), zero_in_(params.zero_in), zero_out_(params.zero_out), float_(params.float_out), kernel_(kernel) {
    depth_ = s_.kernel_w * s_.channels;
    depth4_ = (depth_ + 3) / 4;
    framed_ = s_.pad_top + s_.pad_bottom + s_.pad_left + s_.pad_right > 0;
    frame_w_ = s_.width + s_.pad_left + s_.pad_right;
    flat_ = !framed_ && s_.kernel_h == 1 && s_.kernel_w == 1 && s_.stride_h == 1 && s_.stride_w == 1;
    int total = 0;
    while (total < s_.outputs) total += columns_at(total);
    weights_ = Aligned<std::int8_t>(group_bytes() * total);
    bias_ = Aligned<std::int32_t>(total);
    multiplier_ = Aligned<float>(total);
    for (int first = 0; first < s_.outputs; first += columns_at(first)) pack(params, first, columns_at(first));
  }

  const char* kernel() const override { return kernel_; }
  std::size_t scratch_bytes() const override {
    return framed_ ? std::size_t(frame_w_) * (s_.height + s_.pad_top + s_.pad_bottom) * s_.channels + 64 : 0;
  }

  void run(const ConvShape& s, const std::uint8_t* input, void* output, std::uint8_t* scratch) const override {
    std::uint8_t* out = static_cast<std::uint8_t*>(output);
    if (flat_) {
      run_flat(input, out, s.batch * s.height * s.width);
      return;
    }
    const std::ptrdiff_t pitch = std::ptrdiff_t(frame_w_) * s.channels;
    const std::size_t image = std::size_t(s.height) * s.width * s.channels;
    for (int n = 0; n < s.batch; ++n, input += image) {
      const std::uint8_t* map = input;
      if (framed_) {
        frame(s, input, scratch);
        map = scratch;
      }
      for (int y = 0; y < s.out_height; ++y, map += pitch * s.stride_h, out += s.out_width * ldo()) {
        for (int first = 0; first < s.outputs; first += columns_at(first)) {
          run_pixels(map, std::ptrdiff_t(s.stride_w) * s.channels, pitch, out, s.out_width, first);
        }
      }
    }
  }

 private:
  std::size_t group_bytes() const { return std::size_t(s_.kernel_h) * depth4_ * 4; }
  std::ptrdiff_t ldo() const { return std::ptrdiff_t(s_.out_pixel) * (float_ ? 4 : 1); }

  // Outputs in the panel that starts at `first`: 32, or 24 where those come out even, or what is left in 16 or 24.
  int columns_at(int first) const {
    const int left = s_.outputs - first;
    if (s_.outputs % 24 == 0 && s_.outputs % 32 != 0) return 24;
    return left > 24 ? 32 : left > 16 ? 24 : 16;
  }

  void pack(const ConvU8Params& params, int first, int columns) {
    std::int8_t* packed = weights_ + group_bytes() * first;
    for (int column = 0; column < columns && first + column < s_.outputs; ++column) {
      const int output = first + column;
      const std::int8_t* from = params.weights + std::size_t(output) * s_.kernel_h * depth_;
      std::uint32_t sum = 0;
      for (int ky = 0; ky < s_.kernel_h; ++ky) {
        for (int k = 0; k < depth_; ++k) {
          const std::int8_t weight = from[ky * depth_ + k];
          sum += std::uint32_t(std::int32_t(weight));
          packed[((std::size_t(ky) * depth4_ + k / 4) * columns + column) * 4 + k % 4] = weight;
        }
      }
      // In 32 bits with wrap-around, as the sums are.
      bias_[output] = std::int32_t(std::uint32_t(params.bias[output]) + sum * std::uint32_t(T::kShift));
      multiplier_[output] = params.multiplier[output];
    }
  }

  // Every pixel's window is the pixel: one long run, cut so that a piece stays in the first-level cache.
  void run_flat(const std::uint8_t* input, std::uint8_t* out, int pixels) const {
    const int block = 16384 / depth_ > 60 ? 16384 / depth_ / 60 * 60 : 60;
    for (int start = 0; start < pixels; start += block) {
      const int count = pixels - start < block ? pixels - start : block;
      for (int first = 0; first < s_.outputs; first += columns_at(first)) {
        run_pixels(input + std::ptrdiff_t(start) * depth_, depth_, 0, out + start * ldo(), count, first);
      }
    }
  }

  // Neighbouring outputs under one panel, in tiles of nearly the same number of rows.
  void run_pixels(const std::uint8_t* from, std::ptrdiff_t lda, std::ptrdiff_t pitch, std::uint8_t* out, int count,
                  int first) const {
    const int columns = columns_at(first), left = s_.outputs - first, most = most_rows(columns / 4);
    Tile t{from, lda, pitch, s_.kernel_h, depth4_, weights_ + group_bytes() * first, bias_ + first, multiplier_ + first,
           out + first * (float_ ? 4 : 1), ldo(), vdupq_n_s16(std::int16_t(zero_out_)), left < columns ? left : columns};
    const int tiles = (count + most - 1) / most, rows = (count + tiles - 1) / tiles;
    int larger = count - tiles * (rows - 1);  // tiles of `rows`; the others have one row less
    TileFn run = float_ ? tile_for<T, true>(rows, columns / 4) : tile_for<T, false>(rows, columns / 4);
    int now = rows;
    for (int done = 0; done < count; done += now, t.a += now * lda, t.out += now * t.ldo) {
      if (larger-- == 0) {
        now = rows - 1;
        run = float_ ? tile_for<T, true>(now, columns / 4) : tile_for<T, false>(now, columns / 4);
      }
      run(t);
    }
  }

  void frame(const ConvShape& s, const std::uint8_t* input, std::uint8_t* to) const {
    const std::size_t row = std::size_t(frame_w_) * s.channels, line = std::size_t(s.width) * s.channels;
    const std::size_t left = std::size_t(s.pad_left) * s.channels, right = std::size_t(s.pad_right) * s.channels;
    // The right edge of one row and the left edge of the next are one run.
    std::size_t gap = row * s.pad_top + left;
    for (int y = 0; y < s.height; ++y) {
      std::memset(to, zero_in_, gap);
      to += gap;
      std::memcpy(to, input, line);
      input += line;
      to += line;
      gap = right + left;
    }
    std::memset(to, zero_in_, right + row * s.pad_bottom);
  }

  ConvShape s_;
  std::int32_t zero_in_, zero_out_;
  bool float_, framed_ = false, flat_ = false;
  const char* kernel_;
  int depth_ = 0, depth4_ = 0, frame_w_ = 0;
  Aligned<std::int8_t> weights_;
  Aligned<std::int32_t> bias_;
  Aligned<float> multiplier_;
};

}  // namespace
}  // namespace nas
