#include "nas/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace nas {
namespace {

#if defined(__x86_64__)

bool bit(unsigned value, int position) { return (value >> position) & 1U; }

// Register state that the operating system saves (XCR0). Only legal where cpuid reports OSXSAVE.
std::uint64_t saved_state() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

Features detect() {
  Features found;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !bit(c, 27)) return found;  // bit 27: OSXSAVE
  const bool has_fma = bit(c, 12);
  const std::uint64_t saved = saved_state();
  const bool ymm = (saved & 0x06) == 0x06;
  const bool zmm = ymm && (saved & 0xe0) == 0xe0;
  const bool tiles = (saved & 0x60000) == 0x60000;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
  const unsigned highest_subleaf = a;
  found.fma = ymm && has_fma;
  found.avx2 = ymm && bit(b, 5);
  found.avx512f = zmm && bit(b, 16);
  found.avx512bw = zmm && bit(b, 30);
  found.avx512vl = zmm && bit(b, 31);
  found.avx512vbmi = zmm && bit(c, 1);
  found.avx512_vnni = zmm && bit(c, 11);
  found.amx_int8 = tiles && bit(d, 25);
  if (highest_subleaf >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
    found.avx_vnni = ymm && bit(a, 4);
    found.avx512_bf16 = zmm && bit(a, 5);
  }
  return found;
}

#elif defined(__aarch64__) && defined(__linux__)

// Bits of AT_HWCAP and AT_HWCAP2, written out because old headers lack the newer names.
Features detect() {
  const unsigned long caps = getauxval(AT_HWCAP);
  const unsigned long caps2 = getauxval(AT_HWCAP2);
  Features found;
  found.asimd = caps & (1UL << 1);
  found.asimddp = caps & (1UL << 20);
  found.i8mm = caps2 & (1UL << 13);
  found.bf16 = caps2 & (1UL << 14);
  return found;
}

#else

Features detect() { return {}; }

#endif

}  // namespace

const Features& cpu_features() {
  static const Features found = detect();
  return found;
}

std::vector<std::pair<std::string, bool>> named_cpu_features() {
  [[maybe_unused]] const Features& f = cpu_features();
#if defined(__x86_64__)
  return {{"avx2", f.avx2},
          {"fma", f.fma},
          {"avx_vnni", f.avx_vnni},
          {"avx512f", f.avx512f},
          {"avx512bw", f.avx512bw},
          {"avx512vl", f.avx512vl},
          {"avx512vbmi", f.avx512vbmi},
          {"avx512_vnni", f.avx512_vnni},
          {"avx512_bf16", f.avx512_bf16},
          {"amx_int8", f.amx_int8}};
#elif defined(__aarch64__)
  return {{"asimd", f.asimd}, {"asimddp", f.asimddp}, {"i8mm", f.i8mm}, {"bf16", f.bf16}};
#else
  return {};
#endif
}

}  // namespace nas
