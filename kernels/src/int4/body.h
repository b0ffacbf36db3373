// Products of rounded activations with 4-bit weights, once for all instruction sets. `T` gives the vector:
//   Sums, Reals                int32 and float lanes, one per column
//   kLanes                     columns of a vector
//   vectors(rows)              vectors of a tile; lanes times vectors divides kInt4Columns
//   kBlock                     elements along k that a Partial takes before it must be folded
//   struct Nibbles             the 8 weights of each column: nibbles(bytes) unpacks kLanes x 4 bytes
//   struct Partial             sums of one group, zero when made
//   void add(Partial&, Nibbles, const int8_t* eight)
//   void fold(Partial&); Sums total(Partial)
//   Reals fused(Reals a, Reals b, Reals c)       a * b + c with one rounding
// Internal linkage: included by files for one ISA each.
#pragma once

#include "round.h"

namespace nas {
namespace {

template <class T, int Rows>
void int4_tile(const Int4Args& args, const Int4Activations& a, std::int64_t row, std::int64_t first) {
  using Sums = typename T::Sums;
  using Reals = typename T::Reals;
  constexpr int kVectors = T::vectors(Rows);
  constexpr std::int64_t kWidth = kVectors * T::kLanes;
  const std::int64_t groups = int4_groups(args.k, args.group);
  const std::int64_t part_bytes = int4_part_bytes(args.group);
  const std::int64_t stride = groups * args.group;
  const std::int64_t in_panel = first % kInt4Columns;
  const std::uint8_t* part = static_cast<const std::uint8_t*>(args.packed) + first / kInt4Columns * groups * part_bytes;
  const std::size_t columns = static_cast<std::size_t>(args.n - first < kWidth ? args.n - first : kWidth);
  float edge[kWidth] = {};
  if (args.shift != nullptr) std::memcpy(edge, args.shift + first, 4 * columns);
  Reals totals[Rows][kVectors];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < kVectors; ++v) totals[r][v] = load<Reals>(edge + v * T::kLanes);
  }
  for (std::int64_t g = 0; g < groups; ++g, part += part_bytes) {
    const std::int8_t* values = a.values + (row * groups + g) * args.group;
    const std::uint8_t* w = part + 4 * in_panel;
    typename T::Partial partial[Rows][kVectors] = {};
    for (std::int64_t block = 0; block < args.group; block += T::kBlock) {
      const std::int64_t end = args.group - block < T::kBlock ? args.group : block + T::kBlock;
      for (std::int64_t k = block; k < end; k += 8, w += 4 * kInt4Columns) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          const typename T::Nibbles nibbles = T::nibbles(w + 4 * v * T::kLanes);
#pragma GCC unroll 2
          for (int r = 0; r < Rows; ++r) T::add(partial[r][v], nibbles, values + r * stride + k);
        }
      }
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 2
        for (int r = 0; r < Rows; ++r) T::fold(partial[r][v]);
      }
    }
    const std::uint8_t* scales = part + args.group / 2 * kInt4Columns + 4 * in_panel;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Reals scale = load<Reals>(scales + 4 * v * T::kLanes);
      const Sums zero = load<Sums>(scales + 4 * (kInt4Columns + v * T::kLanes));
#pragma GCC unroll 2
      for (int r = 0; r < Rows; ++r) {
        const std::int64_t at = (row + r) * groups + g;
        const Sums sum = T::total(partial[r][v]) - zero * a.sums[at];
        totals[r][v] = T::fused(__builtin_convertvector(sum, Reals), a.scales[at] * scale, totals[r][v]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < kVectors; ++v) store(edge + v * T::kLanes, totals[r][v]);
    std::memcpy(args.c + (row + r) * args.ldc + first, edge, 4 * columns);
  }
}

template <class T, int Rows>
void int4_rows(const Int4Args& args, const Int4Activations& a, std::int64_t row, std::int64_t panel) {
  const std::int64_t end = args.n - panel < kInt4Columns ? args.n : panel + kInt4Columns;
  for (std::int64_t first = panel; first < end; first += T::vectors(Rows) * T::kLanes) {
    int4_tile<T, Rows>(args, a, row, first);
  }
}

template <class T>
void int4_run(const Int4Args& args) {
  const Int4Activations a = int4_rounded(args);
  for (std::int64_t panel = 0; panel < args.n; panel += kInt4Columns) {
    std::int64_t row = 0;
    for (; row + 2 <= args.m; row += 2) int4_rows<T, 2>(args, a, row, panel);
    if (row < args.m) int4_rows<T, 1>(args, a, row, panel);
  }
}

[[maybe_unused]] inline std::int32_t four_bytes(const std::int8_t* p) {
  std::int32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

}  // namespace
}  // namespace nas
