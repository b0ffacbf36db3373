// Hides a value from the optimizer at no cost: without it, accumulators that hold equal values would be merged into one,
// and a product of unchanged operands would be computed only once.
#pragma once

namespace {  // one copy per file, for the reason that dot_tail.h gives

template <typename Vector>
Vector opaque(Vector value) {
#if defined(__x86_64__)
  __asm__ volatile("" : "+v"(value));
#elif defined(__aarch64__)
  __asm__ volatile("" : "+w"(value));
#else
  __asm__ volatile("" : "+m"(value));
#endif
  return value;
}

}  // namespace
