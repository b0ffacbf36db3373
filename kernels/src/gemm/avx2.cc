// 4 rows by up to 24 columns in 16-bit products. maddubs, which multiplies bytes, would saturate: a pair of u8 x s8 products
// needs 17 bits. Weights stay bytes in memory and are widened as they are loaded, once for four rows.
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "nas/gemm.h"

namespace nas {
namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::uint8_t;

constexpr int64_t kRows = 4;
// Activations are widened in pieces of so many k.
constexpr int64_t kPiece = 512;

// Panels of 1 to 3 vectors of 8 columns, balanced; a panel is k / 2 steps (rounded up) of its columns x 2 k.
struct Panels {
  int64_t vectors, count;
  explicit Panels(int64_t n) : vectors((n + 7) / 8), count((vectors + 2) / 3) {}
  int width(int64_t panel) const { return static_cast<int>(vectors / count + (panel < vectors % count ? 1 : 0)); }
};

std::size_t packed_bytes(int64_t n, int64_t k) { return static_cast<std::size_t>((n + 7) / 8 * 8 * ((k + 1) / 2 * 2)); }

void pack(const int8_t* w, int64_t stride_n, int64_t stride_k, int64_t n, int64_t k, void* packed) {
  const Panels panels(n);
  int8_t* out = static_cast<int8_t*>(packed);
  int64_t first = 0;
  for (int64_t p = 0; p < panels.count; ++p) {
    const int64_t columns = 8 * panels.width(p);
    for (int64_t step = 0; step < k; step += 2) {
      for (int64_t j = first; j < first + columns; ++j) {
        for (int64_t row = step; row < step + 2; ++row) {
          *out++ = j < n && row < k ? w[j * stride_n + row * stride_k] : int8_t{0};
        }
      }
    }
    first += columns;
  }
}

struct Panel {
  alignas(32) int32_t start[24];
  alignas(32) float scale[24];
  alignas(32) float shift[24];
  int64_t columns;
};

void fill(const GemmEpilogue& e, int64_t first, int64_t columns, Panel* out) {
  out->columns = columns;
  for (int64_t j = 0; j < 24; ++j) {
    const bool inside = j < columns;
    out->start[j] = inside && e.bias != nullptr ? e.bias[first + j] : 0;
    out->scale[j] = inside && e.scale != nullptr ? e.scale[first + j] : 0.0F;
    out->shift[j] = inside && e.shift != nullptr ? e.shift[first + j] : 0.0F;
  }
}

// `count` values of one row as 16 bits, and a zero after an odd number.
void widen(const uint8_t* a, bool is_signed, int64_t count, std::int16_t* out) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a + i));
    const __m256i wide = is_signed ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), wide);
  }
  for (; i < count; ++i) out[i] = is_signed ? static_cast<int8_t>(a[i]) : a[i];
  if (count % 2 != 0) out[count] = 0;
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

template <int Rows, int Width>
void tile(const GemmArgs& args, const Panel& p, const int8_t* b, int64_t row, int64_t first) {
  alignas(32) std::int16_t values[Rows][kPiece + 16];
  __m256i sums[Rows][Width];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < Width; ++v) sums[r][v] = _mm256_load_si256(reinterpret_cast<const __m256i*>(p.start + 8 * v));
  }
  const uint8_t* a = static_cast<const uint8_t*>(args.a) + row * args.lda;
  for (int64_t piece = 0; piece < args.k; piece += kPiece) {
    const int64_t count = args.k - piece < kPiece ? args.k - piece : kPiece;
    for (int r = 0; r < Rows; ++r) widen(a + r * args.lda + piece, args.a_signed, count, values[r]);
    for (int64_t k = 0; k < count; k += 2, b += 16 * Width) {
      __m256i weights[Width];
#pragma GCC unroll 3
      for (int v = 0; v < Width; ++v) {
        weights[v] = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + 16 * v)));
      }
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
        int32_t pair;
        std::memcpy(&pair, values[r] + k, 4);
        const __m256i both = _mm256_set1_epi32(pair);
#pragma GCC unroll 3
        for (int v = 0; v < Width; ++v) sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(weights[v], both));
      }
    }
  }
  for (int r = 0; r < Rows; ++r) store<Width>(args, p, sums[r], row + r, first);
}

using TileFunction = void (*)(const GemmArgs&, const Panel&, const int8_t*, int64_t, int64_t);
constexpr TileFunction kTiles[4][5] = {
    {},
    {nullptr, tile<1, 1>, tile<2, 1>, tile<3, 1>, tile<4, 1>},
    {nullptr, tile<1, 2>, tile<2, 2>, tile<3, 2>, tile<4, 2>},
    {nullptr, tile<1, 3>, tile<2, 3>, tile<3, 3>, tile<4, 3>},
};

void run(const GemmArgs& args) {
  const Panels panels(args.n);
  const int8_t* b = static_cast<const int8_t*>(args.packed);
  int64_t first = 0;
  for (int64_t i = 0; i < panels.count; ++i) {
    const int width = panels.width(i);
    Panel p;
    fill(args.epilogue, first, args.n - first < 8 * width ? args.n - first : 8 * width, &p);
    for (int64_t row = 0; row < args.m; row += kRows) {
      kTiles[width][args.m - row < kRows ? args.m - row : kRows](args, p, b, row, first);
    }
    first += 8 * width;
    b += 8 * width * ((args.k + 1) / 2 * 2);
  }
}

}  // namespace

const GemmKernel gemm_u8s8s32_4x24x2_avx2 = {Level::avx2, "gemm_u8s8s32_4x24x2_avx2", packed_bytes, pack, run};

}  // namespace nas
