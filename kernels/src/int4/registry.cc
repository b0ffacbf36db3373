// Which kernel a level runs.
#include "nas/int4.h"

namespace nas {

extern const Int4Kernel int4_portable;
#if defined(__x86_64__)
extern const Int4Kernel int4_avx2, int4_avx_vnni, int4_avx512vl_vnni, int4_avx512_vnni;
#elif defined(__aarch64__)
extern const Int4Kernel int4_neon, int4_neondot;
#endif

const Int4Kernel& int4_kernel(Level level) {
  switch (level) {
#if defined(__x86_64__)
    case Level::avx2:
    case Level::avx512:
      return int4_avx2;
    case Level::avx_vnni:
      return int4_avx_vnni;
    case Level::avx512vl_vnni:
      return int4_avx512vl_vnni;
    case Level::avx512_vnni:
      return int4_avx512_vnni;
#elif defined(__aarch64__)
    case Level::neon:
      return int4_neon;
    case Level::neondot:
    case Level::neoni8mm:
      return int4_neondot;
#endif
    default:
      return int4_portable;
  }
}

}  // namespace nas
