// How the work of one operator is shared among threads.
#pragma once

#include <cstdint>

namespace nas {

// One of `count` parts that together are the whole; what a part writes does not depend on how many there are.
struct Part {
  int index = 0;
  int count = 1;
};

struct Span {
  std::int64_t first = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - first; }
};

// Internal linkage: files for one ISA include this.
namespace {

// Which of `total` things a part takes: about as many as any other, in multiples of `unit` but for the last.
[[maybe_unused]] inline Span share(std::int64_t total, Part part, std::int64_t unit = 1) {
  const std::int64_t units = (total + unit - 1) / unit;
  const std::int64_t first = units * part.index / part.count * unit, end = units * (part.index + 1) / part.count * unit;
  return {first < total ? first : total, end < total ? end : total};
}

}  // namespace
}  // namespace nas
