#include "body.h"

namespace nas {

extern const NormKernels norm_avx512;
const NormKernels norm_avx512 = NAS_NORM_KERNELS(Level::avx512);

}  // namespace nas
