// Activations to 8 bits by row and group, for one instruction set.
#pragma once

#include "../lanes.h"
#include "layout.h"
#include "nas/int4.h"

namespace {

Int4Activations int4_rounded(const nas::Int4Args& args) {
  const Int4Activations out = int4_activations(args.scratch, args.m, args.k, args.group);
  const std::int64_t groups = int4_groups(args.k, args.group);
  std::int8_t* to = out.values;
  for (std::int64_t i = 0; i < args.m; ++i) {
    for (std::int64_t g = 0; g < groups; ++g, to += args.group) {
      const float* from = args.a + i * args.lda + g * args.group;
      const std::int64_t left = args.k - g * args.group;
      const std::int64_t count = left < args.group ? left : args.group;
      Floats largest = {};
      each_vector(count, [&](std::int64_t j, std::int64_t lanes) {
        const Floats value = floats_from(from, j, lanes);
        largest = larger(larger(value, -value), largest);
      });
      const float top = max_of(largest);
      const float inverse = top > 0.0F ? 127.0F / top : 0.0F;
      Ints sums = {};
      each_vector(count, [&](std::int64_t j, std::int64_t lanes) {
        const Ints value = rounded(within(floats_from(from, j, lanes) * inverse, -127, 127));
        sums += value;
        bytes_to(to, j, value, lanes);
      });
      if (count < args.group) std::memset(to + count, 0, static_cast<std::size_t>(args.group - count));
      out.scales[i * groups + g] = top / 127.0F;
      out.sums[i * groups + g] = sum_of(sums);
    }
  }
  return out;
}

}  // namespace
