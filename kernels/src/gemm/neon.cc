// 4 rows by 16 columns in 16-bit products, exact for both signs of activation: what every 64-bit ARM has.
#include "neon_store.h"

namespace nas {
namespace {

using std::int64_t;

// 8 values of one row as 16 bits; past the end zeros.
template <bool Signed>
inline int16x8_t eight(const std::uint8_t* a, int64_t left) {
  std::uint8_t some[8] = {};
  if (left < 8) {
    std::memcpy(some, a, static_cast<std::size_t>(left));
    a = some;
  }
  const uint8x8_t bytes = vld1_u8(a);
  return Signed ? vmovl_s8(vreinterpret_s8_u8(bytes)) : vreinterpretq_s16_u16(vmovl_u8(bytes));
}

template <bool Signed, int Rows, int Lane>
inline void multiply(int32x4_t (&sums)[Rows][4], const int16x8_t* a, const std::int8_t* b) {
  const int8x16_t bytes = vld1q_s8(b);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes));
  const int16x8_t high = vmovl_high_s8(bytes);
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    sums[r][0] = vmlal_laneq_s16(sums[r][0], vget_low_s16(low), a[r], Lane);
    sums[r][1] = vmlal_high_laneq_s16(sums[r][1], low, a[r], Lane);
    sums[r][2] = vmlal_laneq_s16(sums[r][2], vget_low_s16(high), a[r], Lane);
    sums[r][3] = vmlal_high_laneq_s16(sums[r][3], high, a[r], Lane);
  }
}

template <bool Signed, int Rows>
void tile(const GemmArgs& args, const PanelEpilogue& p, const std::int8_t* b, int64_t row, int64_t first,
          const NeonStore& store) {
  int32x4_t sums[Rows][4];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums[r][v] = vld1q_s32(p.start + 4 * v);
  }
  const std::uint8_t* a = static_cast<const std::uint8_t*>(args.a) + row * args.lda;
  for (int64_t k = 0; k < args.k; k += 8, b += 8 * kPanel) {
    int16x8_t values[Rows];
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) values[r] = eight<Signed>(a + r * args.lda + k, args.k - k);
    multiply<Signed, Rows, 0>(sums, values, b);
    multiply<Signed, Rows, 1>(sums, values, b + kPanel);
    multiply<Signed, Rows, 2>(sums, values, b + 2 * kPanel);
    multiply<Signed, Rows, 3>(sums, values, b + 3 * kPanel);
    multiply<Signed, Rows, 4>(sums, values, b + 4 * kPanel);
    multiply<Signed, Rows, 5>(sums, values, b + 5 * kPanel);
    multiply<Signed, Rows, 6>(sums, values, b + 6 * kPanel);
    multiply<Signed, Rows, 7>(sums, values, b + 7 * kPanel);
  }
  for (int r = 0; r < Rows; ++r) store.row(sums[r], p, row + r, first);
}

// Panels of 16 columns, k (rounded up to 8) rows of 16 bytes each.
std::size_t packed_bytes(int64_t n, int64_t k) {
  return static_cast<std::size_t>((n + kPanel - 1) / kPanel * kPanel * ((k + 7) / 8 * 8));
}

void pack(const std::int8_t* w, int64_t stride_n, int64_t stride_k, int64_t n, int64_t k, void* packed) {
  std::int8_t* out = static_cast<std::int8_t*>(packed);
  for (int64_t first = 0; first < n; first += kPanel) {
    for (int64_t row = 0; row < (k + 7) / 8 * 8; ++row) {
      for (int64_t j = first; j < first + kPanel; ++j) {
        *out++ = j < n && row < k ? w[j * stride_n + row * stride_k] : std::int8_t{0};
      }
    }
  }
}

void run(const GemmArgs& args) {
  const NeonStore store(args);
  const int64_t panel_bytes = kPanel * ((args.k + 7) / 8 * 8);
  for (int64_t first = 0; first < args.n; first += kPanel) {
    PanelEpilogue p;
    fill_epilogue(args.epilogue, first, args.n, nullptr, 0, &p);
    const std::int8_t* b = static_cast<const std::int8_t*>(args.packed) + first / kPanel * panel_bytes;
    each_tile(args.m, [&](auto rows, int64_t row) {
      args.a_signed ? tile<true, rows()>(args, p, b, row, first, store) : tile<false, rows()>(args, p, b, row, first, store);
    });
  }
}

}  // namespace

const GemmKernel gemm_u8s8s32_4x16x1_neon = {Level::neon, "gemm_u8s8s32_4x16x1_neon", packed_bytes, pack, run};

}  // namespace nas
