// The one list of levels: dispatch, the forced level and the tests all read it.
#include "nas/isa.h"

namespace nas {

const std::vector<IsaLevel>& known_isas() {
  static const std::vector<IsaLevel> levels = {
      {"portable", [](const Features&) { return true; }, &fma_f32_8x4_portable, &dot_u8s8s32_portable},
#if defined(__x86_64__)
      {"avx2", [](const Features& f) { return f.avx2 && f.fma; }, &fma_f32_12x8_avx2, &dot_u8s8s32_8x32_avx2},
      {"avx_vnni", [](const Features& f) { return f.avx2 && f.fma && f.avx_vnni; }, &fma_f32_12x8_avx2,
       &dot_u8s8s32_12x32_avxvnni},
      {"avx512", [](const Features& f) { return f.avx2 && f.fma && f.avx512f; }, &fma_f32_12x16_avx512,
       &dot_u8s8s32_8x32_avx2},
      {"avx512_vnni", [](const Features& f) { return f.avx2 && f.fma && f.avx512f && f.avx512_vnni; },
       &fma_f32_12x16_avx512, &dot_u8s8s32_12x64_avx512vnni},
#elif defined(__aarch64__)
      {"neon", [](const Features& f) { return f.asimd; }, &fma_f32_12x4_neon, &dot_u8s8s32_8x16_neon},
      {"neondot", [](const Features& f) { return f.asimd && f.asimddp; }, &fma_f32_12x4_neon,
       &dot_u8s8s32_12x16_neondot},
#endif
  };
  return levels;
}

}  // namespace nas
