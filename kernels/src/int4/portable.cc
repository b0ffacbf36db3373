// The reference, and the packing that all kernels share.
#include <cmath>

#include "round.h"

namespace nas {
namespace {

void run(const Int4Args& args) {
  const Int4Activations a = int4_rounded(args);
  const std::int64_t groups = int4_groups(args.k, args.group);
  const std::int64_t part_bytes = int4_part_bytes(args.group);
  for (std::int64_t i = 0; i < args.m; ++i) {
    for (std::int64_t j = 0; j < args.n; ++j) {
      const std::uint8_t* part = static_cast<const std::uint8_t*>(args.packed) + j / kInt4Columns * groups * part_bytes;
      const std::int64_t column = j % kInt4Columns;
      float total = args.shift != nullptr ? args.shift[j] : 0.0F;
      for (std::int64_t g = 0; g < groups; ++g, part += part_bytes) {
        const std::int8_t* row = a.values + (i * groups + g) * args.group;
        std::int32_t sum = 0;
        for (std::int64_t k = 0; k < args.group; ++k) {
          const std::uint8_t both = part[(k / 8 * kInt4Columns + column) * 4 + k % 4];
          sum += row[k] * (k % 8 < 4 ? both & 15 : both >> 4);
        }
        float scale;
        std::int32_t zero;
        std::memcpy(&scale, part + args.group / 2 * kInt4Columns + 4 * column, 4);
        std::memcpy(&zero, part + args.group / 2 * kInt4Columns + 4 * (kInt4Columns + column), 4);
        sum -= zero * a.sums[i * groups + g];
        total = std::fma(static_cast<float>(sum), a.scales[i * groups + g] * scale, total);
      }
      args.c[i * args.ldc + j] = total;
    }
  }
}

void pack_part(const Int4Weights& w, std::int64_t n, std::int64_t k, std::int64_t group, std::int64_t first, std::int64_t g,
               std::uint8_t* part) {
  const std::int64_t groups = int4_groups(k, group);
  std::uint8_t* scales = part + group / 2 * kInt4Columns;
  std::uint8_t* zeros = scales + 4 * kInt4Columns;
  for (std::int64_t column = 0; column < kInt4Columns; ++column) {
    const std::int64_t j = first + column;
    const bool inside = j < n;
    const float scale = inside ? w.scales[j * groups + g] : 0.0F;
    std::int32_t zero = 8;
    if (inside && w.zero_points != nullptr) {
      zero = (w.zero_points[j * ((groups + 1) / 2) + g / 2] >> (4 * (g % 2))) & 15;
    }
    std::memcpy(scales + 4 * column, &scale, 4);
    std::memcpy(zeros + 4 * column, &zero, 4);
    for (std::int64_t i = 0; i < group; ++i) {
      const std::uint8_t both = inside ? w.values[(j * groups + g) * (group / 2) + i / 2] : 0;
      const int value = inside && g * group + i < k ? (i % 2 == 0 ? both & 15 : both >> 4) : zero;
      std::uint8_t& to = part[(i / 8 * kInt4Columns + column) * 4 + i % 4];
      to = static_cast<std::uint8_t>(i % 8 < 4 ? value : to | (value << 4));
    }
  }
}

}  // namespace

std::int64_t int4_panel_columns() { return kInt4Columns; }

std::size_t int4_packed_bytes(std::int64_t n, std::int64_t k, std::int64_t group) {
  const std::int64_t panels = (n + kInt4Columns - 1) / kInt4Columns;
  return static_cast<std::size_t>(panels * int4_groups(k, group) * int4_part_bytes(group));
}

void int4_pack(const Int4Weights& weights, std::int64_t n, std::int64_t k, std::int64_t group, void* packed) {
  std::uint8_t* part = static_cast<std::uint8_t*>(packed);
  for (std::int64_t first = 0; first < n; first += kInt4Columns) {
    for (std::int64_t g = 0; g < int4_groups(k, group); ++g, part += int4_part_bytes(group)) {
      pack_part(weights, n, k, group, first, g, part);
    }
  }
}

std::size_t int4_scratch_bytes(std::int64_t m, std::int64_t k, std::int64_t group) {
  const std::int64_t groups = int4_groups(k, group);
  return static_cast<std::size_t>((m * groups * group + 63) / 64 * 64 + 2 * ((m * groups * 4 + 63) / 64 * 64));
}

extern const Int4Kernel int4_portable;
const Int4Kernel int4_portable = {Level::portable, "int4_f32_portable", run};

}  // namespace nas
