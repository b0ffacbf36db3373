// Which operators on bytes a level runs.
#include "bytes.h"

namespace nas {

const ByteKernels& byte_kernels(Level level) {
#if defined(__x86_64__)
  if (level == Level::avx512_vnni) return byte_kernels_avx512;
  if (level >= Level::avx2) return byte_kernels_avx2;
#elif defined(__aarch64__)
  if (level >= Level::neon) return byte_kernels_neon;
#endif
  (void)level;
  return byte_kernels_portable;
}

}  // namespace nas
