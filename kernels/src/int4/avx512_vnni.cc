// One or two rows by 64 columns: weights are the unsigned side of the dot product, rounded activations the signed one.
#include "round.h"

namespace nas {
namespace {

#define NAS_INLINE __attribute__((always_inline))

// As in gemm/avx512_vnni.cc: the intrinsic would spill.
inline NAS_INLINE void dot_add(__m512i& sum, __m512i u8, __m512i s8) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
}

inline NAS_INLINE __m512i broadcast(const std::int8_t* p) {
  std::int32_t word;
  std::memcpy(&word, p, 4);
  return _mm512_set1_epi32(word);
}

template <int Rows>
void panel(const Int4Args& args, const Int4Activations& a, std::int64_t row, std::int64_t column) {
  const std::int64_t groups = int4_groups(args.k, args.group);
  const std::int64_t part_bytes = int4_part_bytes(args.group);
  const std::uint8_t* part =
      static_cast<const std::uint8_t*>(args.packed) + column / kInt4Columns * groups * part_bytes;
  const std::int64_t columns = args.n - column < kInt4Columns ? args.n - column : kInt4Columns;
  __mmask16 masks[4];
  __m512 totals[Rows][4];
  for (int v = 0; v < 4; ++v) {
    const std::int64_t here = columns - 16 * v;
    masks[v] = here >= 16 ? __mmask16{0xffff} : here <= 0 ? __mmask16{0} : static_cast<__mmask16>((1U << here) - 1U);
    const __m512 start = args.shift != nullptr ? _mm512_maskz_loadu_ps(masks[v], args.shift + column + 16 * v)
                                               : _mm512_setzero_ps();
    for (int r = 0; r < Rows; ++r) totals[r][v] = start;
  }
  const __m512i lower = _mm512_set1_epi8(15);
  for (std::int64_t g = 0; g < groups; ++g, part += part_bytes) {
    const std::int8_t* values = a.values + (row * groups + g) * args.group;
    const std::int64_t stride = groups * args.group;
    // Two sums per vector: one would have the latency of each instruction in its way.
    __m512i sums[Rows][4], upper_sums[Rows][4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
#pragma GCC unroll 2
      for (int r = 0; r < Rows; ++r) sums[r][v] = upper_sums[r][v] = _mm512_setzero_si512();
    }
    const std::uint8_t* w = part;
    for (std::int64_t k = 0; k < args.group; k += 8, w += 4 * kInt4Columns) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const __m512i both = _mm512_loadu_si512(w + 64 * v);
        const __m512i low = _mm512_and_si512(both, lower);
        const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), lower);
#pragma GCC unroll 2
        for (int r = 0; r < Rows; ++r) {
          dot_add(sums[r][v], low, broadcast(values + r * stride + k));
          dot_add(upper_sums[r][v], high, broadcast(values + r * stride + k + 4));
        }
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const __m512 scale = _mm512_loadu_ps(w + 64 * v);
      const __m512i zero = _mm512_loadu_si512(w + 256 + 64 * v);
#pragma GCC unroll 2
      for (int r = 0; r < Rows; ++r) {
        const std::int64_t at = (row + r) * groups + g;
        const __m512i correction = _mm512_mullo_epi32(zero, _mm512_set1_epi32(a.sums[at]));
        const __m512i sum = _mm512_sub_epi32(_mm512_add_epi32(sums[r][v], upper_sums[r][v]), correction);
        totals[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(_mm512_set1_ps(a.scales[at]), scale),
                                       totals[r][v]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < 4; ++v) {
      _mm512_mask_storeu_ps(args.c + (row + r) * args.ldc + column + 16 * v, masks[v], totals[r][v]);
    }
  }
}

void run(const Int4Args& args) {
  const Int4Activations a = int4_rounded(args);
  for (std::int64_t column = 0; column < args.n; column += kInt4Columns) {
    std::int64_t row = 0;
    for (; row + 2 <= args.m; row += 2) panel<2>(args, a, row, column);
    if (row < args.m) panel<1>(args, a, row, column);
  }
}

}  // namespace

extern const Int4Kernel int4_avx512_vnni;
const Int4Kernel int4_avx512_vnni = {Level::avx512_vnni, "int4_f32_2x64x8_avx512vnni", run};

}  // namespace nas
