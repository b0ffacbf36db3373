// What the gemms on vectors of 256 bits share: panels of up to 24 columns, their epilogue, the walk over tiles of 4 rows.
// `T` gives the product:
//   kStep                          elements along k that one product sums
//   kFlip                          what is added to a signed activation so that it is unsigned; 0 where either will do
//   tile<Rows, Width>(args, rows, weights, sums)
// Internal linkage: included by files for one ISA each.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "nas/gemm.h"

namespace nas {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::uint8_t;

constexpr int64_t kRows = 4;

// Panels of 1 to 3 vectors of 8 columns, balanced; a panel is k / kStep steps (rounded up) of its columns x kStep k.
struct Panels {
  int64_t vectors, count;
  explicit Panels(int64_t n) : vectors((n + 7) / 8), count((vectors + 2) / 3) {}
  int width(int64_t panel) const { return static_cast<int>(vectors / count + (panel < vectors % count ? 1 : 0)); }
};

template <class T>
int64_t padded(int64_t k) {
  return (k + T::kStep - 1) / T::kStep * T::kStep;
}

// Behind the weights the sum of each column, where activations may be flipped.
template <class T>
std::size_t packed_bytes(int64_t n, int64_t k) {
  return static_cast<std::size_t>((n + 7) / 8 * 8 * (padded<T>(k) + (T::kFlip != 0 ? 4 : 0)));
}

template <class T>
void pack(const int8_t* w, int64_t stride_n, int64_t stride_k, int64_t n, int64_t k, void* packed) {
  const Panels panels(n);
  int8_t* out = static_cast<int8_t*>(packed);
  int64_t first = 0;
  for (int64_t p = 0; p < panels.count; ++p) {
    const int64_t columns = 8 * panels.width(p);
    for (int64_t step = 0; step < k; step += T::kStep) {
      for (int64_t j = first; j < first + columns; ++j) {
        for (int64_t row = step; row < step + T::kStep; ++row) {
          *out++ = j < n && row < k ? w[j * stride_n + row * stride_k] : int8_t{0};
        }
      }
    }
    first += columns;
  }
  if (T::kFlip == 0) return;
  for (int64_t j = 0; j < first; ++j, out += 4) {
    std::uint32_t sum = 0;
    for (int64_t row = 0; j < n && row < k; ++row) {
      sum += static_cast<std::uint32_t>(int32_t{w[j * stride_n + row * stride_k]});
    }
    std::memcpy(out, &sum, 4);
  }
}

struct Panel {
  alignas(32) int32_t start[24];
  alignas(32) float scale[24];
  alignas(32) float shift[24];
  int64_t columns;
};

// `column_sums` (of the panel, or null) times `flip` is taken from the bias.
void fill(const GemmEpilogue& e, int64_t first, int64_t columns, const int8_t* column_sums, int32_t flip, Panel* out) {
  out->columns = columns;
  for (int64_t j = 0; j < 24; ++j) {
    const bool inside = j < columns;
    std::uint32_t start = inside && e.bias != nullptr ? static_cast<std::uint32_t>(e.bias[first + j]) : 0;
    if (inside && column_sums != nullptr) {
      std::uint32_t sum;
      std::memcpy(&sum, column_sums + 4 * j, 4);
      start -= sum * static_cast<std::uint32_t>(flip);
    }
    out->start[j] = static_cast<int32_t>(start);
    out->scale[j] = inside && e.scale != nullptr ? e.scale[first + j] : 0.0F;
    out->shift[j] = inside && e.shift != nullptr ? e.shift[first + j] : 0.0F;
  }
}

template <int Width>
void store(const GemmArgs& args, const Panel& p, __m256i* sums, int64_t row, int64_t first) {
  const GemmEpilogue& e = args.epilogue;
  const bool narrow = e.output == GemmOutput::u8 || e.output == GemmOutput::s8;
  alignas(32) int32_t out[8 * Width];
  for (int v = 0; v < Width; ++v) {
    __m256i sum = sums[v];
    if (e.row_term != nullptr) sum = _mm256_add_epi32(sum, _mm256_set1_epi32(e.row_term[row]));
    const __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_load_ps(p.scale + 8 * v));
    if (narrow) {
      const __m256 low = _mm256_set1_ps(static_cast<float>(e.low - e.zero_point));
      const __m256 high = _mm256_set1_ps(static_cast<float>(e.high - e.zero_point));
      sum = _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(value, low), high)),
                             _mm256_set1_epi32(e.zero_point));
    } else if (e.output == GemmOutput::f32) {
      sum = _mm256_castps_si256(e.shift != nullptr ? _mm256_add_ps(value, _mm256_load_ps(p.shift + 8 * v)) : value);
    }
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + 8 * v), sum);
  }
  if (!narrow) {
    std::memcpy(static_cast<int32_t*>(args.c) + row * args.ldc + first, out, static_cast<std::size_t>(p.columns) * 4);
    return;
  }
  // The lowest byte of each of 8 words, by halves of 128 bits.
  uint8_t* c = static_cast<uint8_t*>(args.c) + row * args.ldc + first;
  uint8_t bytes[8 * Width];
  const __m128i pick = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  for (int half = 0; half < 2 * Width; ++half) {
    const int32_t four =
        _mm_cvtsi128_si32(_mm_shuffle_epi8(_mm_load_si128(reinterpret_cast<const __m128i*>(out + 4 * half)), pick));
    std::memcpy(bytes + 4 * half, &four, 4);
  }
  std::memcpy(c, bytes, static_cast<std::size_t>(p.columns));
}

template <class T, int Rows, int Width>
void tile_at(const GemmArgs& args, const Panel& p, const int8_t* b, int64_t row, int64_t first) {
  __m256i sums[Rows][Width];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < Width; ++v) sums[r][v] = _mm256_load_si256(reinterpret_cast<const __m256i*>(p.start + 8 * v));
  }
  T::template tile<Rows, Width>(args, static_cast<const uint8_t*>(args.a) + row * args.lda, b, sums);
  for (int r = 0; r < Rows; ++r) store<Width>(args, p, sums[r], row + r, first);
}

using TileFunction = void (*)(const GemmArgs&, const Panel&, const int8_t*, int64_t, int64_t);
template <class T>
constexpr TileFunction kTiles[4][5] = {
    {},
    {nullptr, tile_at<T, 1, 1>, tile_at<T, 2, 1>, tile_at<T, 3, 1>, tile_at<T, 4, 1>},
    {nullptr, tile_at<T, 1, 2>, tile_at<T, 2, 2>, tile_at<T, 3, 2>, tile_at<T, 4, 2>},
    {nullptr, tile_at<T, 1, 3>, tile_at<T, 2, 3>, tile_at<T, 3, 3>, tile_at<T, 4, 3>},
};

template <class T>
void run(const GemmArgs& args) {
  const Panels panels(args.n);
  const int8_t* b = static_cast<const int8_t*>(args.packed);
  const int8_t* column_sums = T::kFlip != 0 && args.a_signed ? b + 8 * panels.vectors * padded<T>(args.k) : nullptr;
  int64_t first = 0;
  for (int64_t i = 0; i < panels.count; ++i) {
    const int width = panels.width(i);
    Panel p;
    fill(args.epilogue, first, args.n - first < 8 * width ? args.n - first : 8 * width,
         column_sums != nullptr ? column_sums + 4 * first : nullptr, T::kFlip, &p);
    for (int64_t row = 0; row < args.m; row += kRows) {
      kTiles<T>[width][args.m - row < kRows ? args.m - row : kRows](args, p, b, row, first);
    }
    first += 8 * width;
    b += 8 * width * padded<T>(args.k);
  }
}

}  // namespace
}  // namespace nas
