// 6 rows by 64 columns (or 8 by 48, 12 by 32, 12 by 16), four products per lane and instruction.
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

#define NAS_INLINE __attribute__((always_inline))

// gcc 12 spills the accumulators of _mm512_dpbusd_epi32 to the stack; one line of assembly keeps them in registers.
inline NAS_INLINE void dot_add(__m512i& sum, __m512i u8, __m512i s8) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
}

template <int Value>
using Index = std::integral_constant<int, Value>;

template <typename Body, int... I>
inline NAS_INLINE void unrolled(Body body, std::integer_sequence<int, I...>) {
  (body(Index<I>{}), ...);
}

// body(0), body(1), ... body(Count - 1), each with its number known to the compiler.
template <int Count, typename Body>
inline NAS_INLINE void unroll(Body body) {
  unrolled(body, std::make_integer_sequence<int, Count>{});
}

// --- Layout: the column sums (int32, whole vectors), then panels of 1 to 4 vectors of 16 columns. A panel is k / 4 steps
// (rounded up, filled with zeros) of its vectors, each 16 columns of 4 consecutive k.

struct Panels {
  int64_t vectors;
  int64_t count;
  explicit Panels(int64_t n) : vectors((n + 15) / 16), count((vectors + 3) / 4) {}
  // Balanced, so that no panel is much narrower than the others.
  int width(int64_t panel) const { return static_cast<int>(vectors / count + (panel < vectors % count ? 1 : 0)); }
};

std::size_t packed_bytes(int64_t n, int64_t k) {
  const int64_t vectors = (n + 15) / 16;
  return static_cast<std::size_t>(vectors * 64 + vectors * ((k + 3) / 4) * 64);
}

// 16 columns of four k, where all are inside.
inline void pack_step(const int8_t* w, int64_t stride_n, int64_t stride_k, int8_t* out) {
  for (int j = 0; j < 16; ++j) {
    for (int i = 0; i < 4; ++i) out[4 * j + i] = w[j * stride_n + i * stride_k];
  }
}

void pack_vector(const int8_t* w, int64_t stride_n, int64_t stride_k, int64_t columns, int64_t k, int8_t* out,
                 int64_t step) {
  for (int64_t row = 0; row < k; row += 4, out += step) {
    if (columns >= 16 && row + 4 <= k) {
      pack_step(w + row * stride_k, stride_n, stride_k, out);
      continue;
    }
    std::memset(out, 0, 64);
    for (int64_t j = 0; j < columns && j < 16; ++j) {
      for (int64_t i = 0; i < 4 && row + i < k; ++i) out[4 * j + i] = w[j * stride_n + (row + i) * stride_k];
    }
  }
}

void sum_columns(const int8_t* panel, int64_t steps, int width, int32_t* sums) {
  const __m512i ones = _mm512_set1_epi8(1);
  for (int v = 0; v < width; ++v) {
    __m512i sum = _mm512_setzero_si512();
    for (int64_t s = 0; s < steps; ++s) dot_add(sum, ones, _mm512_loadu_si512(panel + (s * width + v) * 64));
    _mm512_storeu_si512(sums + 16 * v, sum);
  }
}

void pack(const int8_t* w, int64_t stride_n, int64_t stride_k, int64_t n, int64_t k, void* packed) {
  const Panels panels(n);
  const int64_t steps = (k + 3) / 4;
  int32_t* sums = static_cast<int32_t*>(packed);
  int8_t* out = static_cast<int8_t*>(packed) + panels.vectors * 64;
  int64_t column = 0;
  for (int64_t p = 0; p < panels.count; ++p) {
    const int width = panels.width(p);
    for (int v = 0; v < width; ++v) {
      const int64_t first = column + 16 * v;
      pack_vector(w + first * stride_n, stride_n, stride_k, n - first, k, out + 64 * v, 64 * width);
    }
    sum_columns(out, steps, width, sums + column);
    column += 16 * width;
    out += 64 * width * steps;
  }
}

// --- One tile.

struct Tile {
  const uint8_t* a;
  int64_t lda;
  int32_t flip;  // turns s8 into u8 by adding 128, or leaves u8 as it is; the column sums take 128 times w back
  int64_t steps;  // whole steps of four k
  int rest;       // k % 4
  const int8_t* b;
  const int32_t* column_sums;
  const int32_t* bias;
  const int32_t* row_term;
  const float* scale;
  const float* shift;
  uint8_t* c;    // bytes
  int64_t ldc;   // bytes
  __mmask16 last;  // columns of the last vector
  uint64_t bytes;  // columns of the whole tile
  GemmOutput output;
  __m512 floor, ceiling;  // bounds of the rounded value before the zero point
  __m512i zero;           // int16
};

inline int32_t four(const uint8_t* p) {
  int32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

inline int32_t fewer(const uint8_t* p, int count) {
  int32_t word = 0;
  std::memcpy(&word, p, static_cast<std::size_t>(count));
  return word;
}

inline NAS_INLINE __m512i rounded(__m512i sum, __m512 scale, const Tile& t) {
  const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
  return _mm512_cvtps_epi32(_mm512_max_ps(_mm512_min_ps(value, t.ceiling), t.floor));
}

// 64 columns or fewer, as bytes in their natural order: packing leaves groups of four bytes transposed, one permutation
// puts them right.
template <int Width>
inline NAS_INLINE void store_bytes(uint8_t* c, const __m512i* sums, const __m512* scales, const Tile& t) {
  const __m512i none = _mm512_setzero_si512();
  __m512i q[4] = {none, none, none, none};
  unroll<Width>([&](auto v) NAS_INLINE { q[v] = rounded(sums[v], scales[v], t); });
  const __m512i left = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), t.zero);
  const __m512i right = Width > 2 ? _mm512_adds_epi16(_mm512_packs_epi32(q[2], q[3]), t.zero) : left;
  const __m512i mixed = t.output == GemmOutput::u8 ? _mm512_packus_epi16(left, right) : _mm512_packs_epi16(left, right);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = _mm512_permutexvar_epi32(order, mixed);
  if (Width == 4 && t.bytes == ~std::uint64_t{0}) {
    _mm512_storeu_si512(c, bytes);
  } else {
    _mm512_mask_storeu_epi8(c, t.bytes, bytes);
  }
}

template <int Width>
inline NAS_INLINE void store_words(uint8_t* c, const __m512i* sums, const __m512* scales, const Tile& t) {
  unroll<Width>([&](auto v) NAS_INLINE {
    const __mmask16 mask = v + 1 < Width ? __mmask16{0xffff} : t.last;
    if (t.output == GemmOutput::s32) {
      _mm512_mask_storeu_epi32(c + 64 * v, mask, sums[v]);
      return;
    }
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), scales[v]);
    if (t.shift != nullptr) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, t.shift + 16 * v));
    _mm512_mask_storeu_ps(c + 64 * v, mask, value);
  });
}

template <int Rows, int Width>
__attribute__((noinline)) void tile(const Tile& t) {
  __m512i sums[Rows][Width];
  unroll<Width>([&](auto v) NAS_INLINE {
    const __mmask16 mask = v + 1 < Width ? __mmask16{0xffff} : t.last;
    __m512i start = t.bias != nullptr ? _mm512_maskz_loadu_epi32(mask, t.bias + 16 * v) : _mm512_setzero_si512();
    if (t.flip != 0) start = _mm512_sub_epi32(start, _mm512_slli_epi32(_mm512_loadu_si512(t.column_sums + 16 * v), 7));
    unroll<Rows>([&](auto r) NAS_INLINE { sums[r][v] = start; });
  });
  const uint8_t* a = t.a;
  const int8_t* b = t.b;
  const __m512i flip = _mm512_set1_epi32(t.flip);
  const auto step = [&](auto word) NAS_INLINE {
    __m512i weights[Width];
    unroll<Width>([&](auto v) NAS_INLINE { weights[v] = _mm512_loadu_si512(b + 64 * v); });
    unroll<Rows>([&](auto r) NAS_INLINE {
      const __m512i value = _mm512_xor_si512(_mm512_set1_epi32(word(a + r * t.lda)), flip);
      unroll<Width>([&](auto v) NAS_INLINE { dot_add(sums[r][v], value, weights[v]); });
    });
  };
  for (int64_t s = 0; s < t.steps; ++s, a += 4, b += 64 * Width) step([](const uint8_t* p) NAS_INLINE { return four(p); });
  if (t.rest != 0) step([&](const uint8_t* p) NAS_INLINE { return fewer(p, t.rest); });

  __m512 scales[Width];
  unroll<Width>([&](auto v) NAS_INLINE {
    const __mmask16 mask = v + 1 < Width ? __mmask16{0xffff} : t.last;
    scales[v] = t.output != GemmOutput::s32 ? _mm512_maskz_loadu_ps(mask, t.scale + 16 * v) : _mm512_setzero_ps();
  });
  const bool narrow = t.output == GemmOutput::u8 || t.output == GemmOutput::s8;
  unroll<Rows>([&](auto r) NAS_INLINE {
    if (t.row_term != nullptr) {
      const __m512i term = _mm512_set1_epi32(t.row_term[r]);
      unroll<Width>([&](auto v) NAS_INLINE { sums[r][v] = _mm512_add_epi32(sums[r][v], term); });
    }
    uint8_t* c = t.c + r * t.ldc;
    narrow ? store_bytes<Width>(c, sums[r], scales, t) : store_words<Width>(c, sums[r], scales, t);
  });
}

// --- All tiles.

using TileFunction = void (*)(const Tile&);
// Rows that fit beside the weights in 32 registers, for panels of 1 to 4 vectors.
constexpr int kMostRows[5] = {0, 12, 12, 8, 6};

template <int Width, int... Rows>
constexpr void fill(TileFunction* row, std::integer_sequence<int, Rows...>) {
  ((row[Rows + 1] = tile<Rows + 1, Width>), ...);
}

struct Tiles {
  TileFunction of[5][13] = {};
  constexpr Tiles() {
    fill<1>(of[1], std::make_integer_sequence<int, kMostRows[1]>{});
    fill<2>(of[2], std::make_integer_sequence<int, kMostRows[2]>{});
    fill<3>(of[3], std::make_integer_sequence<int, kMostRows[3]>{});
    fill<4>(of[4], std::make_integer_sequence<int, kMostRows[4]>{});
  }
};
constexpr Tiles kTiles;

void run_panel(const GemmArgs& args, Tile t, int width, int64_t first_row, int64_t rows, int size) {
  // Tiles of nearly equal height: none is left with a row or two.
  const int64_t tiles = (rows + kMostRows[width] - 1) / kMostRows[width];
  int64_t row = first_row;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t height = rows / tiles + (i < rows % tiles ? 1 : 0);
    Tile now = t;
    now.a = static_cast<const uint8_t*>(args.a) + row * args.lda;
    now.c = t.c + row * args.ldc * size;
    if (t.row_term != nullptr) now.row_term = t.row_term + row;
    kTiles.of[width][height](now);
    row += height;
  }
}

void run(const GemmArgs& args) {
  const GemmEpilogue& e = args.epilogue;
  const Panels panels(args.n);
  const bool narrow = e.output == GemmOutput::u8 || e.output == GemmOutput::s8;
  const int size = narrow ? 1 : 4;
  Tile t = {};
  t.lda = args.lda;
  t.flip = args.a_signed ? static_cast<int32_t>(0x80808080U) : 0;
  t.steps = args.k / 4;
  t.rest = static_cast<int>(args.k % 4);
  t.row_term = e.row_term;
  t.ldc = args.ldc * size;
  t.output = e.output;
  t.floor = _mm512_set1_ps(static_cast<float>(e.low - e.zero_point));
  t.ceiling = _mm512_set1_ps(static_cast<float>(e.high - e.zero_point));
  t.zero = _mm512_set1_epi16(static_cast<short>(e.zero_point));

  // A block of rows stays in the first-level cache while all weights pass by.
  const int64_t fitting = 24576 / (args.k > 0 ? args.k : 1);
  const int64_t block = fitting < 24 ? 24 : fitting;
  for (int64_t row = 0; row < args.m;) {
    int64_t rows = args.m - row < block ? args.m - row : block;
    if (args.m - row - rows < 12) rows = args.m - row;
    const int8_t* b = static_cast<const int8_t*>(args.packed) + panels.vectors * 64;
    int64_t column = 0;
    for (int64_t p = 0; p < panels.count; ++p) {
      const int width = panels.width(p);
      const int64_t columns = args.n - column < 16 * width ? args.n - column : 16 * width;
      t.b = b;
      t.column_sums = static_cast<const int32_t*>(args.packed) + column;
      t.bias = e.bias != nullptr ? e.bias + column : nullptr;
      t.scale = e.scale != nullptr ? e.scale + column : nullptr;
      t.shift = e.shift != nullptr ? e.shift + column : nullptr;
      t.c = static_cast<uint8_t*>(args.c) + column * size;
      t.last = static_cast<__mmask16>((1U << (columns - 16 * (width - 1))) - 1U);
      t.bytes = columns == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << columns) - 1;
      run_panel(args, t, width, row, rows, size);
      column += 16 * width;
      b += 64 * width * ((args.k + 3) / 4);
    }
    row += rows;
  }
}

}  // namespace

const GemmKernel gemm_u8s8s32_6x64x4_avx512vnni = {Level::avx512_vnni, "gemm_u8s8s32_6x64x4_avx512vnni", packed_bytes,
                                                   pack, run};

}  // namespace nas
