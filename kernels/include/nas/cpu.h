// What the processor and the operating system offer, asked once per process.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace nas {

// Vector extensions that the kernels care about, named as in Linux's /proc/cpuinfo. One that the processor has but the
// operating system does not save on a context switch counts as absent.
struct Features {
  bool avx2 = false;
  bool fma = false;
  bool avx_vnni = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512vl = false;
  bool avx512vbmi = false;
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool amx_int8 = false;
  bool asimd = false;
  bool asimddp = false;
  bool i8mm = false;
  bool bf16 = false;
};

const Features& cpu_features();

// The features of this architecture (x86_64 or aarch64) by name, absent ones included; the other architecture's are
// left out.
std::vector<std::pair<std::string, bool>> named_cpu_features();

}  // namespace nas
