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
  if (stride_k == 1) {
    for (int j = 0; j < 16; ++j) std::memcpy(out + 4 * j, w + j * stride_n, 4);
  } else if (stride_n == 1) {
    __m128i rows[4];
    for (int i = 0; i < 4; ++i) rows[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + i * stride_k));
    const __m128i low01 = _mm_unpacklo_epi8(rows[0], rows[1]);
    const __m128i high01 = _mm_unpackhi_epi8(rows[0], rows[1]);
    const __m128i low23 = _mm_unpacklo_epi8(rows[2], rows[3]);
    const __m128i high23 = _mm_unpackhi_epi8(rows[2], rows[3]);
    __m128i* to = reinterpret_cast<__m128i*>(out);
    _mm_storeu_si128(to, _mm_unpacklo_epi16(low01, low23));
    _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(low01, low23));
    _mm_storeu_si128(to + 2, _mm_unpacklo_epi16(high01, high23));
    _mm_storeu_si128(to + 3, _mm_unpackhi_epi16(high01, high23));
  } else {
    for (int j = 0; j < 16; ++j) {
      for (int i = 0; i < 4; ++i) out[4 * j + i] = w[j * stride_n + i * stride_k];
    }
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

// --- Tiles.

// What all tiles of a panel share.
struct Panel {
  int64_t lda;
  int64_t ldc;    // bytes
  int32_t flip;   // turns s8 into u8 by adding 128, or leaves u8 as it is; the column sums take 128 times w back
  int rest;       // k % 4
  int64_t steps;  // whole steps of four k
  const int8_t* b;
  const int32_t* column_sums;
  const int32_t* bias;
  const float* scale;
  const float* shift;
  GemmOutput output;
  __mmask16 last;  // columns of the last vector
  __m512i zero;    // int16
  __m512i low, high;  // bytes
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

// Scales are below 1 here (run sees to that), so the product fits in 32 bits.
inline NAS_INLINE __m512i rounded(__m512i sum, __m512 scale) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
}

// Four vectors of 32 bits as 64 bytes in their order: packing leaves groups of four bytes transposed, one permutation puts
// them right.
inline NAS_INLINE __m512i bytes_of(const __m512i* q, const Panel& p) {
  const __m512i left = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), p.zero);
  const __m512i right = _mm512_adds_epi16(_mm512_packs_epi32(q[2], q[3]), p.zero);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  if (p.output == GemmOutput::u8) {
    const __m512i mixed = _mm512_packus_epi16(left, right);
    return _mm512_permutexvar_epi32(order, _mm512_min_epu8(_mm512_max_epu8(mixed, p.low), p.high));
  }
  const __m512i mixed = _mm512_packs_epi16(left, right);
  return _mm512_permutexvar_epi32(order, _mm512_min_epi8(_mm512_max_epi8(mixed, p.low), p.high));
}

// Rows of one vector are stored four at a time and rows of two vectors two at a time, to share the packing.
template <int Rows, int Width, int First>
inline NAS_INLINE void store_bytes(uint8_t* c, const __m512i (&sums)[Rows][Width], const __m512* scales,
                                   const Panel& p) {
  constexpr int kGroup = Width == 1 ? 4 : Width == 2 ? 2 : 1;
  constexpr int kHere = Rows - First < kGroup ? Rows - First : kGroup;
  const __m512i none = _mm512_setzero_si512();
  __m512i q[4] = {none, none, none, none};
  unroll<kHere>([&](auto r) NAS_INLINE {
    unroll<Width>([&](auto v) NAS_INLINE { q[r * Width + v] = rounded(sums[First + r][v], scales[v]); });
  });
  const __m512i bytes = bytes_of(q, p);
  c += First * p.ldc;
  const std::uint64_t mask = (static_cast<std::uint64_t>(p.last) << (16 * (Width - 1))) |
                             ((std::uint64_t{1} << (16 * (Width - 1))) - 1);
  if constexpr (Width >= 3) {
    if (Width == 4 && p.last == 0xffff) {
      _mm512_storeu_si512(c, bytes);
    } else {
      _mm512_mask_storeu_epi8(c, mask, bytes);
    }
  } else if constexpr (Width == 2) {
    unroll<kHere>([&](auto r) NAS_INLINE {
      const __m256i row = _mm512_extracti64x4_epi64(bytes, r);
      if (p.last == 0xffff) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(c + r * p.ldc), row);
      } else {
        _mm256_mask_storeu_epi8(c + r * p.ldc, static_cast<__mmask32>(mask), row);
      }
    });
  } else {
    unroll<kHere>([&](auto r) NAS_INLINE {
      const __m128i row = _mm512_extracti32x4_epi32(bytes, r);
      if (p.last == 0xffff) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(c + r * p.ldc), row);
      } else {
        _mm_mask_storeu_epi8(c + r * p.ldc, static_cast<__mmask16>(mask), row);
      }
    });
  }
  if constexpr (First + kGroup < Rows) store_bytes<Rows, Width, First + kGroup>(c - First * p.ldc, sums, scales, p);
}

template <int Width>
inline NAS_INLINE void store_words(uint8_t* c, const __m512i* sums, const __m512* scales, const Panel& p) {
  unroll<Width>([&](auto v) NAS_INLINE {
    const __mmask16 mask = v + 1 < Width ? __mmask16{0xffff} : p.last;
    if (p.output == GemmOutput::s32) {
      _mm512_mask_storeu_epi32(c + 64 * v, mask, sums[v]);
      return;
    }
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), scales[v]);
    if (p.shift != nullptr) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, p.shift + 16 * v));
    _mm512_mask_storeu_ps(c + 64 * v, mask, value);
  });
}

// `count` tiles below each other.
template <int Rows, int Width>
__attribute__((noinline)) void tiles(const Panel& p, int64_t count, const uint8_t* first, const int32_t* row_term,
                                     uint8_t* c) {
  const __m512i flip = _mm512_set1_epi32(p.flip);
  for (; count > 0; --count, first += Rows * p.lda, c += Rows * p.ldc) {
    __m512i sums[Rows][Width];
    unroll<Width>([&](auto v) NAS_INLINE {
      const __mmask16 mask = v + 1 < Width ? __mmask16{0xffff} : p.last;
      __m512i start = p.bias != nullptr ? _mm512_maskz_loadu_epi32(mask, p.bias + 16 * v) : _mm512_setzero_si512();
      if (p.flip != 0) start = _mm512_sub_epi32(start, _mm512_slli_epi32(_mm512_loadu_si512(p.column_sums + 16 * v), 7));
      unroll<Rows>([&](auto r) NAS_INLINE { sums[r][v] = start; });
    });
    const uint8_t* a = first;
    const int8_t* b = p.b;
    const auto step = [&](auto word) NAS_INLINE {
      __m512i weights[Width];
      unroll<Width>([&](auto v) NAS_INLINE { weights[v] = _mm512_loadu_si512(b + 64 * v); });
      unroll<Rows>([&](auto r) NAS_INLINE {
        const __m512i value = _mm512_xor_si512(_mm512_set1_epi32(word(a + r * p.lda)), flip);
        unroll<Width>([&](auto v) NAS_INLINE { dot_add(sums[r][v], value, weights[v]); });
      });
    };
    for (int64_t s = 0; s < p.steps; ++s, a += 4, b += 64 * Width) {
      step([](const uint8_t* word) NAS_INLINE { return four(word); });
    }
    if (p.rest != 0) step([&](const uint8_t* word) NAS_INLINE { return fewer(word, p.rest); });

    if (row_term != nullptr) {
      unroll<Rows>([&](auto r) NAS_INLINE {
        const __m512i term = _mm512_set1_epi32(row_term[r]);
        unroll<Width>([&](auto v) NAS_INLINE { sums[r][v] = _mm512_add_epi32(sums[r][v], term); });
      });
      row_term += Rows;
    }
    __m512 scales[Width];
    unroll<Width>([&](auto v) NAS_INLINE {
      const __mmask16 mask = v + 1 < Width ? __mmask16{0xffff} : p.last;
      scales[v] = p.scale != nullptr ? _mm512_maskz_loadu_ps(mask, p.scale + 16 * v) : _mm512_setzero_ps();
    });
    if (p.output == GemmOutput::u8 || p.output == GemmOutput::s8) {
      store_bytes<Rows, Width, 0>(c, sums, scales, p);
    } else {
      unroll<Rows>([&](auto r) NAS_INLINE { store_words<Width>(c + r * p.ldc, sums[r], scales, p); });
    }
  }
}

using TilesFunction = void (*)(const Panel&, int64_t, const uint8_t*, const int32_t*, uint8_t*);
// Rows that fit beside the weights in 32 registers, for panels of 1 to 4 vectors.
constexpr int kMostRows[5] = {0, 12, 12, 8, 6};

template <int Width, int... Rows>
constexpr void fill(TilesFunction* row, std::integer_sequence<int, Rows...>) {
  ((row[Rows + 1] = tiles<Rows + 1, Width>), ...);
}

struct Table {
  TilesFunction of[5][13] = {};
  constexpr Table() {
    fill<1>(of[1], std::make_integer_sequence<int, kMostRows[1]>{});
    fill<2>(of[2], std::make_integer_sequence<int, kMostRows[2]>{});
    fill<3>(of[3], std::make_integer_sequence<int, kMostRows[3]>{});
    fill<4>(of[4], std::make_integer_sequence<int, kMostRows[4]>{});
  }
};
constexpr Table kTiles;

// Tiles of two heights that differ by one: none is left with a row or two.
void run_panel(const Panel& p, int width, int64_t rows, const uint8_t* a, const int32_t* row_term, uint8_t* c) {
  const int64_t count = (rows + kMostRows[width] - 1) / kMostRows[width];
  const int64_t low = rows / count;
  const int64_t higher = rows % count;
  if (higher > 0) {
    kTiles.of[width][low + 1](p, higher, a, row_term, c);
    const int64_t done = higher * (low + 1);
    a += done * p.lda;
    c += done * p.ldc;
    if (row_term != nullptr) row_term += done;
  }
  kTiles.of[width][low](p, count - higher, a, row_term, c);
}

// Scales of 1 and more, which no trained network has, can leave 32 bits: sums first, then the clips before the conversion.
void run_panel_clamped(const Panel& p, const GemmEpilogue& e, int width, int64_t rows, const uint8_t* a,
                       const int32_t* row_term, uint8_t* c) {
  constexpr int64_t kRows = 16;
  int32_t sums[kRows * 64];
  Panel whole = p;
  whole.output = GemmOutput::s32;
  whole.ldc = 256;
  const __m512 floor = _mm512_set1_ps(static_cast<float>(e.low - e.zero_point));
  const __m512 ceiling = _mm512_set1_ps(static_cast<float>(e.high - e.zero_point));
  for (int64_t row = 0; row < rows; row += kRows) {
    const int64_t here = rows - row < kRows ? rows - row : kRows;
    run_panel(whole, width, here, a + row * p.lda, row_term != nullptr ? row_term + row : nullptr,
              reinterpret_cast<uint8_t*>(sums));
    for (int64_t r = 0; r < here; ++r) {
      for (int v = 0; v < width; ++v) {
        const __mmask16 mask = v + 1 < width ? __mmask16{0xffff} : p.last;
        const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(mask, sums + r * 64 + 16 * v)),
                                           _mm512_maskz_loadu_ps(mask, p.scale + 16 * v));
        const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_max_ps(_mm512_min_ps(value, ceiling), floor)),
                                           _mm512_set1_epi32(e.zero_point));
        _mm_mask_storeu_epi8(c + (row + r) * p.ldc + 16 * v, mask, _mm512_cvtepi32_epi8(q));
      }
    }
  }
}

bool all_below_one(const float* scale, int64_t n) {
  __m512 largest = _mm512_setzero_ps();
  for (int64_t j = 0; j < n; j += 16) {
    const __mmask16 mask = n - j >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1U << (n - j)) - 1U);
    largest = _mm512_max_ps(largest, _mm512_abs_ps(_mm512_maskz_loadu_ps(mask, scale + j)));
  }
  return _mm512_cmp_ps_mask(largest, _mm512_set1_ps(0.999F), _CMP_NLT_UQ) == 0;
}

void run(const GemmArgs& args) {
  const GemmEpilogue& e = args.epilogue;
  const Panels panels(args.n);
  const bool narrow = e.output == GemmOutput::u8 || e.output == GemmOutput::s8;
  const int size = narrow ? 1 : 4;
  const bool clamped = narrow && !all_below_one(e.scale, args.n);
  Panel p = {};
  p.lda = args.lda;
  p.ldc = args.ldc * size;
  p.flip = args.a_signed ? static_cast<int32_t>(0x80808080U) : 0;
  p.steps = args.k / 4;
  p.rest = static_cast<int>(args.k % 4);
  p.output = e.output;
  p.zero = _mm512_set1_epi16(static_cast<short>(e.zero_point));
  p.low = _mm512_set1_epi8(static_cast<char>(e.low));
  p.high = _mm512_set1_epi8(static_cast<char>(e.high));

  // A block of rows stays in the first-level cache while all weights pass by.
  const int64_t fitting = 24576 / (args.k > 0 ? args.k : 1);
  const int64_t block = fitting < 24 ? 24 : fitting;
  for (int64_t row = 0; row < args.m;) {
    int64_t rows = args.m - row < block ? args.m - row : block;
    if (args.m - row - rows < 12) rows = args.m - row;
    p.b = static_cast<const int8_t*>(args.packed) + panels.vectors * 64;
    const uint8_t* a = static_cast<const uint8_t*>(args.a) + row * args.lda;
    const int32_t* row_term = e.row_term != nullptr ? e.row_term + row : nullptr;
    int64_t column = 0;
    for (int64_t i = 0; i < panels.count; ++i) {
      const int width = panels.width(i);
      const int64_t columns = args.n - column < 16 * width ? args.n - column : 16 * width;
      p.column_sums = static_cast<const int32_t*>(args.packed) + column;
      p.bias = e.bias != nullptr ? e.bias + column : nullptr;
      p.scale = e.scale != nullptr ? e.scale + column : nullptr;
      p.shift = e.shift != nullptr ? e.shift + column : nullptr;
      p.last = static_cast<__mmask16>((1U << (columns - 16 * (width - 1))) - 1U);
      uint8_t* c = static_cast<uint8_t*>(args.c) + column * size + row * p.ldc;
      if (clamped) {
        run_panel_clamped(p, e, width, rows, a, row_term, c);
      } else {
        run_panel(p, width, rows, a, row_term, c);
      }
      column += 16 * width;
      p.b += 64 * width * ((args.k + 3) / 4);
    }
    row += rows;
  }
}

}  // namespace

const GemmKernel gemm_u8s8s32_6x64x4_avx512vnni = {Level::avx512_vnni, "gemm_u8s8s32_6x64x4_avx512vnni", packed_bytes,
                                                   pack, run};

}  // namespace nas
