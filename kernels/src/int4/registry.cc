// Which kernel a level runs.
#include "nas/int4.h"

namespace nas {

extern const Int4Kernel int4_portable;
#if defined(__x86_64__)
extern const Int4Kernel int4_avx512_vnni;
#endif

const Int4Kernel& int4_kernel(Level level) {
  switch (level) {
#if defined(__x86_64__)
    case Level::avx512_vnni:
      return int4_avx512_vnni;
#endif
    default:
      return int4_portable;
  }
}

}  // namespace nas
