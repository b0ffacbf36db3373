// 4 rows by 16 columns, four products per lane and instruction. sdot takes signed values on both sides, so u8 activations are
// shifted by 128, which the column sums of the weights give back.
#include "neon_store.h"

namespace nas {
namespace {

using std::int64_t;

inline int8x16_t sixteen(const std::uint8_t* a, int64_t left, uint8x16_t flip) {
  std::uint8_t some[16] = {};
  if (left < 16) {
    std::memcpy(some, a, static_cast<std::size_t>(left));
    a = some;
  }
  return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(a), flip));
}

template <int Rows, int Lane>
inline void multiply(int32x4_t (&sums)[Rows][4], const int8x16_t* a, const std::int8_t* b) {
  const int8x16x4_t w = vld1q_s8_x4(b);
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums[r][v] = vdotq_laneq_s32(sums[r][v], w.val[v], a[r], Lane);
  }
}

template <int Rows>
void tile(const GemmArgs& args, const PanelEpilogue& p, const std::int8_t* b, int64_t row, int64_t first,
          const NeonStore& store) {
  int32x4_t sums[Rows][4];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums[r][v] = vld1q_s32(p.start + 4 * v);
  }
  const uint8x16_t flip = vdupq_n_u8(args.a_signed ? 0 : 0x80);
  const std::uint8_t* a = static_cast<const std::uint8_t*>(args.a) + row * args.lda;
  for (int64_t k = 0; k < args.k; k += 16, b += 16 * kPanel) {
    int8x16_t values[Rows];
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) values[r] = sixteen(a + r * args.lda + k, args.k - k, flip);
    multiply<Rows, 0>(sums, values, b);
    if (k + 4 < args.k) multiply<Rows, 1>(sums, values, b + 4 * kPanel);
    if (k + 8 < args.k) multiply<Rows, 2>(sums, values, b + 8 * kPanel);
    if (k + 12 < args.k) multiply<Rows, 3>(sums, values, b + 12 * kPanel);
  }
  for (int r = 0; r < Rows; ++r) store.row(sums[r], p, row + r, first);
}

// Column sums (whole panels), then panels of k / 4 steps (rounded up) of 16 columns x 4 k.
int64_t padded(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

std::size_t packed_bytes(int64_t n, int64_t k) { return static_cast<std::size_t>(padded(n) * (4 + (k + 3) / 4 * 4)); }

void pack(const std::int8_t* w, int64_t stride_n, int64_t stride_k, int64_t n, int64_t k, void* packed) {
  std::int32_t* sums = static_cast<std::int32_t*>(packed);
  std::int8_t* out = static_cast<std::int8_t*>(packed) + 4 * padded(n);
  for (int64_t j = 0; j < padded(n); ++j) sums[j] = 0;
  for (int64_t first = 0; first < n; first += kPanel) {
    for (int64_t step = 0; step < k; step += 4) {
      for (int64_t j = first; j < first + kPanel; ++j) {
        for (int64_t row = step; row < step + 4; ++row) {
          const std::int8_t value = j < n && row < k ? w[j * stride_n + row * stride_k] : std::int8_t{0};
          sums[j] += value;
          *out++ = value;
        }
      }
    }
  }
}

void run(const GemmArgs& args) {
  const NeonStore store(args);
  const int64_t panel_bytes = kPanel * ((args.k + 3) / 4 * 4);
  const std::int32_t* sums = static_cast<const std::int32_t*>(args.packed);
  const std::int8_t* panels = static_cast<const std::int8_t*>(args.packed) + 4 * padded(args.n);
  for (int64_t first = 0; first < args.n; first += kPanel) {
    PanelEpilogue p;
    fill_epilogue(args.epilogue, first, args.n, sums, args.a_signed ? 0 : 128, &p);
    const std::int8_t* b = panels + first / kPanel * panel_bytes;
    each_tile(args.m, [&](auto rows, int64_t row) { tile<rows()>(args, p, b, row, first, store); });
  }
}

}  // namespace

const GemmKernel gemm_u8s8s32_4x16x4_neondot = {Level::neondot, "gemm_u8s8s32_4x16x4_neondot", packed_bytes, pack, run};

}  // namespace nas
