// Which kernels a level runs.
#include "nas/norm.h"

namespace nas {

extern const NormKernels norm_portable;
#if defined(__x86_64__)
extern const NormKernels norm_avx2, norm_avx512;
#elif defined(__aarch64__)
extern const NormKernels norm_neon;
#endif

const NormKernels& norm_kernels(Level level) {
  switch (level) {
#if defined(__x86_64__)
    case Level::avx2:
    case Level::avx_vnni:
    case Level::avx512vl_vnni:
      return norm_avx2;
    case Level::avx512:
    case Level::avx512_vnni:
      return norm_avx512;
#elif defined(__aarch64__)
    case Level::neon:
    case Level::neondot:
    case Level::neoni8mm:
      return norm_neon;
#endif
    default:
      return norm_portable;
  }
}

}  // namespace nas
