// The one list of levels: dispatch, the forced level and the tests all read it.
#include "nas/isa.h"

#include "nas/level.h"

namespace nas {
namespace {

// The name and the condition of a level are those of src/cpu/level.cc.
template <Level level>
IsaLevel at(const Fp32Kernel* fp32, const Int8Kernel* int8) {
  return {level_name(level), [](const Features&) { return level_available(level); }, fp32, int8};
}

}  // namespace

const std::vector<IsaLevel>& known_isas() {
  static const std::vector<IsaLevel> levels = {
      at<Level::portable>(&fma_f32_8x4_portable, &dot_u8s8s32_portable),
#if defined(__x86_64__)
      at<Level::avx2>(&fma_f32_12x8_avx2, &dot_u8s8s32_8x32_avx2),
      at<Level::avx_vnni>(&fma_f32_12x8_avx2, &dot_u8s8s32_12x32_avxvnni),
      at<Level::avx512vl_vnni>(&fma_f32_12x8_avx2, &dot_u8s8s32_12x32_avx512vlvnni),
      at<Level::avx512>(&fma_f32_12x16_avx512, &dot_u8s8s32_8x32_avx2),
      at<Level::avx512_vnni>(&fma_f32_12x16_avx512, &dot_u8s8s32_12x64_avx512vnni),
#elif defined(__aarch64__)
      at<Level::neon>(&fma_f32_12x4_neon, &dot_u8s8s32_8x16_neon),
      at<Level::neondot>(&fma_f32_12x4_neon, &dot_u8s8s32_12x16_neondot),
      at<Level::neoni8mm>(&fma_f32_12x4_neon, &dot_u8s8s32_12x16_neondot),
#endif
  };
  return levels;
}

}  // namespace nas
