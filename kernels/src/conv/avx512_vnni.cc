// conv_u8s8u8 and conv_u8s8f32 with AVX512-VNNI: tiles of up to 12 pixels by up to 64 outputs, direct, no im2col.
//
// Channels lie last, so the pixels under one row of the window are one run of kernel_w * channels bytes; the tile walks
// kernel_h such runs. Only a map with padding is copied, once, into a frame of the input's zero point.
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "../requantize/avx512.h"
#include "conv.h"
#include "packed.h"

namespace nas {
namespace {

struct Tile {
  const std::uint8_t* a;    // first pixel of the window of the tile's first output
  std::ptrdiff_t lda;       // bytes between neighbouring outputs' windows
  std::ptrdiff_t line;      // bytes between the windows of two lines of outputs
  std::ptrdiff_t pitch;     // bytes between rows of the window
  int rows, depth4;         // runs, and groups of 4 bytes in one
  const std::int8_t* b;
  const std::int32_t* bias;
  const float* multiplier;
  std::uint8_t* out;
  std::ptrdiff_t ldo, out_line;
  __m512i zero;             // as 16-bit integers
  int columns;
};

// The first MR pixels lie in one line of outputs, or with TWO half of them in the next.
template <int MR, int NV, bool TWO, bool FLOAT>
void tile(const Tile& t) {
  constexpr int kFirst = TWO ? MR / 2 : MR;
  __m512i sums[MR][NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    const __m512i bias = _mm512_load_si512(t.bias + 16 * v);
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) sums[r][v] = bias;
  }
  const std::int8_t* b = t.b;
  const std::uint8_t* row = t.a;
  const std::ptrdiff_t lda = t.lda;
  for (int ky = 0; ky < t.rows; ++ky, row += t.pitch) {
    const std::uint8_t* a = row;
    const std::uint8_t* a2 = row + t.line;
    for (int k = 0; k < t.depth4; ++k, a += 4, a2 += 4, b += 64 * NV) {
      __m512i columns[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) columns[v] = _mm512_load_si512(b + 64 * v);
#pragma GCC unroll 12
      for (int r = 0; r < MR; ++r) {
        const std::uint8_t* from = r < kFirst ? a + r * lda : a2 + (r - kFirst) * lda;
        std::int32_t four;
        std::memcpy(&four, from, 4);
        const __m512i pixel = _mm512_set1_epi32(four);
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sums[r][v] = dot(sums[r][v], pixel, columns[v]);
      }
    }
  }
  int done = 0;
  if constexpr (NV == 1 && !FLOAT && !TWO && MR >= 4) {
#pragma GCC unroll 3
    for (; done + 4 <= MR; done += 4) {
      const __m512i four[4] = {sums[done][0], sums[done + 1][0], sums[done + 2][0], sums[done + 3][0]};
      store_four(t.out + done * t.ldo, t.ldo, four, t.multiplier, t.zero, t.columns);
    }
  }
#pragma GCC unroll 12
  for (int r = done; r < MR; ++r) {
    std::uint8_t* out = r < kFirst ? t.out + r * t.ldo : t.out + t.out_line + (r - kFirst) * t.ldo;
    if constexpr (FLOAT) {
      store_floats<NV>(reinterpret_cast<float*>(out), sums[r], t.multiplier, t.columns);
    } else {
      store_bytes<NV>(out, sums[r], t.multiplier, t.zero, t.columns);
    }
  }
}

using TileFn = void (*)(const Tile&);
constexpr int kMostRows[5] = {0, 12, 12, 8, 6};

template <int NV, bool TWO, bool FLOAT, int... MR>
TileFn pick(int rows, std::integer_sequence<int, MR...>) {
  TileFn found = nullptr;
  // Two lines have an even number of pixels.
  ((MR + 1 == rows ? void(found = tile<TWO ? (MR + 2) / 2 * 2 : MR + 1, NV, TWO, FLOAT>) : void()), ...);
  return found;
}

// Products that stay floats are classifiers and layers on tokens: 4 rows at most keep the code small.
constexpr int kMostFloatRows = 4;

TileFn float_tile_for(int rows, int vectors) {
  constexpr auto kRows = std::make_integer_sequence<int, kMostFloatRows>{};
  switch (vectors) {
    case 1:
      return pick<1, false, true>(rows, kRows);
    case 2:
      return pick<2, false, true>(rows, kRows);
    case 3:
      return pick<3, false, true>(rows, kRows);
    default:
      return pick<4, false, true>(rows, kRows);
  }
}

template <bool TWO>
TileFn tile_for(int rows, int vectors) {
  switch (vectors) {
    case 1:
      return pick<1, TWO, false>(rows, std::make_integer_sequence<int, kMostRows[1]>{});
    case 2:
      return pick<2, TWO, false>(rows, std::make_integer_sequence<int, kMostRows[2]>{});
    case 3:
      return pick<3, TWO, false>(rows, std::make_integer_sequence<int, kMostRows[3]>{});
    default:
      return pick<4, TWO, false>(rows, std::make_integer_sequence<int, kMostRows[4]>{});
  }
}

class Conv final : public ConvU8 {
 public:
  explicit Conv(const ConvU8Params& params)
      : s_(params.shape), zero_in_(params.zero_in), zero_out_(params.zero_out), float_(params.float_out) {
    depth_ = s_.kernel_w * s_.channels;
    depth4_ = (depth_ + 3) / 4;
    framed_ = s_.pad_top + s_.pad_bottom + s_.pad_left + s_.pad_right > 0;
    frame_w_ = s_.width + s_.pad_left + s_.pad_right;
    frame_h_ = s_.height + s_.pad_top + s_.pad_bottom;
    flat_ = !framed_ && s_.kernel_h == 1 && s_.kernel_w == 1 && s_.stride_h == 1 && s_.stride_w == 1;
    panels_.pack(params, depth_, depth4_, float_);
  }

  const char* kernel() const override {
    return float_ ? "conv_u8s8f32_12x64_avx512vnni" : "conv_u8s8u8_12x64_avx512vnni";
  }
  std::size_t scratch_bytes() const override {
    return framed_ ? std::size_t(frame_w_) * frame_h_ * s_.channels + 64 : 0;
  }

  void run(const ConvShape& s, const std::uint8_t* input, void* output, std::uint8_t* scratch) const override {
    std::uint8_t* out = static_cast<std::uint8_t*>(output);
    if (flat_) {
      run_flat(input, out, s.batch * s.height * s.width);
      return;
    }
    const std::size_t image = std::size_t(s.height) * s.width * s.channels;
    const std::size_t out_image = std::size_t(s.out_height) * s.out_width * s.out_pixel * element();
    for (int n = 0; n < s.batch; ++n, input += image, out += out_image) {
      const std::uint8_t* map = input;
      if (framed_) {
        frame(s, input, scratch);
        map = scratch;
      }
      run_map(map, out, s.out_height);
    }
  }

 private:
  int most_rows(const Panel& panel) const { return float_ ? kMostFloatRows : kMostRows[panel.vectors]; }
  std::ptrdiff_t element() const { return float_ ? 4 : 1; }

  Tile tile_of(const Panel& panel) const {
    Tile t{};
    t.rows = s_.kernel_h;
    t.depth4 = depth4_;
    t.b = panel.weights;
    t.bias = panel.bias;
    t.multiplier = panel.multiplier;
    t.ldo = s_.out_pixel * element();
    t.zero = _mm512_set1_epi16(short(zero_out_));
    t.columns = panel.columns;
    return t;
  }

  // Every pixel's window is the pixel: one long run of rows, cut so that a piece stays in the first-level cache.
  void run_flat(const std::uint8_t* input, std::uint8_t* out, int pixels) const {
    const int block = pixels * depth_ <= 24576 ? pixels : (24576 / depth_ > 24 ? 24576 / depth_ : 24);
    for (int start = 0; start < pixels;) {
      int count = pixels - start < block ? pixels - start : block;
      if (pixels - start - count < 12) count = pixels - start;
      for (int index = 0; index < panels_.count; ++index) {
        const Panel& panel = panels_.at[index];
        Tile t = tile_of(panel);
        t.lda = depth_;
        const int most = most_rows(panel) < count ? most_rows(panel) : count;
        const int tiles = (count + most - 1) / most, rows = (count + tiles - 1) / tiles;
        const TileFn run = float_ ? float_tile_for(rows, panel.vectors) : tile_for<false>(rows, panel.vectors);
        for (int i = 0; i < tiles; ++i) {
          // The last tile starts early instead of being smaller: what it writes twice is the same.
          const int first = start + (i * rows < count - rows ? i * rows : count - rows);
          t.a = input + std::ptrdiff_t(first) * depth_;
          t.out = out + first * t.ldo + panel.first * element();
          run(t);
        }
      }
      start += count;
    }
  }

  // One line of outputs after the other under all panels, unless the weights would be read from memory for each line:
  // then one panel after the other over the whole map.
  void run_map(const std::uint8_t* map, std::uint8_t* out, int lines) const {
    const bool by_panel = std::size_t(s_.outputs) * s_.taps() > (std::size_t(1) << 18);
    if (!by_panel) {
      const int step = !float_ && 2 * s_.out_width <= kMostRows[panels_.widest] ? 2 : 1;
      for (int y = 0; y < lines; y += step) {
        for (int index = 0; index < panels_.count; ++index) run_lines(map, out, panels_.at[index], y, step, lines);
      }
      return;
    }
    for (int index = 0; index < panels_.count; ++index) {
      const Panel& panel = panels_.at[index];
      const int step = !float_ && 2 * s_.out_width <= kMostRows[panel.vectors] ? 2 : 1;
      for (int y = 0; y < lines; y += step) run_lines(map, out, panel, y, step, lines);
    }
  }

  // Outputs of one panel in line y of `lines`, or in lines y and y + 1 together where two of them fit into a tile.
  void run_lines(const std::uint8_t* map, std::uint8_t* out, const Panel& panel, int y, int step, int lines) const {
    const std::ptrdiff_t pitch = std::ptrdiff_t(framed_ ? frame_w_ : s_.width) * s_.channels;
    const int width = s_.out_width, most = most_rows(panel);
    Tile t = tile_of(panel);
    t.lda = std::ptrdiff_t(s_.stride_w) * s_.channels;
    t.pitch = pitch;
    t.line = pitch * s_.stride_h;
    t.out_line = width * t.ldo;
    const std::uint8_t* from = map + y * t.line;
    std::uint8_t* to = out + y * t.out_line + panel.first * element();
    if (step == 2 && y + 1 < lines) {
      t.a = from;
      t.out = to;
      tile_for<true>(2 * width, panel.vectors)(t);
      return;
    }
    const int tiles = (width + most - 1) / most, rows = (width + tiles - 1) / tiles;
    const TileFn run = float_ ? float_tile_for(rows, panel.vectors) : tile_for<false>(rows, panel.vectors);
    for (int i = 0; i < tiles; ++i) {
      const int first = i * rows < width - rows ? i * rows : width - rows;
      t.a = from + first * t.lda;
      t.out = to + first * t.ldo;
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
  int depth_ = 0, depth4_ = 0, frame_w_ = 0, frame_h_ = 0;
  Panels panels_;
};

}  // namespace

ConvU8* conv_u8_avx512vnni(const ConvU8Params& params) {
  if (params.shape.groups != 1 || !sums_fit(params)) return nullptr;
  return new Conv(params);
}

}  // namespace nas
