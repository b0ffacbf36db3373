#include "body.h"

namespace nas {

extern const NormKernels norm_avx2;
const NormKernels norm_avx2 = NAS_NORM_KERNELS(Level::avx2);

}  // namespace nas
