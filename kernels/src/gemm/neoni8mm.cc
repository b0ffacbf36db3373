// 4 rows by 16 columns, where one instruction multiplies 2 rows of 8 by 8 times 2 columns.
#include "neon_store.h"

namespace nas {
namespace {

using std::int64_t;

inline uint8x8_t eight(const std::uint8_t* a, int64_t left) {
  if (left >= 8) return vld1_u8(a);
  std::uint8_t some[8] = {};
  std::memcpy(some, a, static_cast<std::size_t>(left));
  return vld1_u8(some);
}

template <bool Signed>
inline int32x4_t multiply(int32x4_t sum, uint8x16_t a, int8x16_t b) {
  return Signed ? vmmlaq_s32(sum, vreinterpretq_s8_u8(a), b) : vusmmlaq_s32(sum, a, b);
}

// Rows in pairs: a block is (row 0, column 0), (0, 1), (1, 0), (1, 1). A missing last row is computed twice and stored once.
template <bool Signed, int Rows>
void tile(const GemmArgs& args, const PanelEpilogue& p, const std::int8_t* b, int64_t row, int64_t first,
          const NeonStore& store) {
  constexpr int kPairs = (Rows + 1) / 2;
  int32x4_t blocks[kPairs][8];
#pragma GCC unroll 8
  for (int v = 0; v < 8; ++v) {
    const int32x2_t start = vld1_s32(p.start + 2 * v);
#pragma GCC unroll 2
    for (int r = 0; r < kPairs; ++r) blocks[r][v] = vcombine_s32(start, start);
  }
  const std::uint8_t* a = static_cast<const std::uint8_t*>(args.a) + row * args.lda;
  for (int64_t k = 0; k < args.k; k += 8, b += 8 * kPanel) {
    uint8x16_t values[kPairs];
#pragma GCC unroll 2
    for (int r = 0; r < kPairs; ++r) {
      const std::uint8_t* upper = a + 2 * r * args.lda + k;
      const std::uint8_t* lower = 2 * r + 1 < Rows ? upper + args.lda : upper;
      values[r] = vcombine_u8(eight(upper, args.k - k), eight(lower, args.k - k));
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const int8x16x4_t w = vld1q_s8_x4(b + 64 * half);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
#pragma GCC unroll 2
        for (int r = 0; r < kPairs; ++r) {
          blocks[r][4 * half + v] = multiply<Signed>(blocks[r][4 * half + v], values[r], w.val[v]);
        }
      }
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < kPairs; ++r) {
    int32x4_t upper[4], lower[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const int64x2_t left = vreinterpretq_s64_s32(blocks[r][2 * v]);
      const int64x2_t right = vreinterpretq_s64_s32(blocks[r][2 * v + 1]);
      upper[v] = vreinterpretq_s32_s64(vuzp1q_s64(left, right));
      lower[v] = vreinterpretq_s32_s64(vuzp2q_s64(left, right));
    }
    store.row(upper, p, row + 2 * r, first);
    if (2 * r + 1 < Rows) store.row(lower, p, row + 2 * r + 1, first);
  }
}

// Panels of k / 8 steps (rounded up) of 16 columns x 8 k.
int64_t panel_bytes(int64_t k) { return kPanel * ((k + 7) / 8 * 8); }

std::size_t packed_bytes(int64_t n, int64_t k) {
  return static_cast<std::size_t>((n + kPanel - 1) / kPanel * panel_bytes(k));
}

void pack(const std::int8_t* w, int64_t stride_n, int64_t stride_k, int64_t n, int64_t k, void* packed) {
  std::int8_t* out = static_cast<std::int8_t*>(packed);
  for (int64_t first = 0; first < n; first += kPanel) {
    for (int64_t step = 0; step < k; step += 8) {
      for (int64_t j = first; j < first + kPanel; ++j) {
        for (int64_t row = step; row < step + 8; ++row) {
          *out++ = j < n && row < k ? w[j * stride_n + row * stride_k] : std::int8_t{0};
        }
      }
    }
  }
}

void run(const GemmArgs& args) {
  const NeonStore store(args);
  for (int64_t first = 0; first < args.n; first += kPanel) {
    PanelEpilogue p;
    fill_epilogue(args.epilogue, first, args.n, nullptr, 0, &p);
    const std::int8_t* b = static_cast<const std::int8_t*>(args.packed) + first / kPanel * panel_bytes(args.k);
    each_tile(args.m, [&](auto rows, int64_t row) {
      args.a_signed ? tile<true, rows()>(args, p, b, row, first, store) : tile<false, rows()>(args, p, b, row, first, store);
    });
  }
}

}  // namespace

const GemmKernel gemm_u8s8s32_4x16x8_neoni8mm = {Level::neoni8mm, "gemm_u8s8s32_4x16x8_neoni8mm", packed_bytes, pack, run};

}  // namespace nas
