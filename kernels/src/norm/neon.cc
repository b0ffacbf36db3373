#include "body.h"

namespace nas {

extern const NormKernels norm_neon;
const NormKernels norm_neon = NAS_NORM_KERNELS(Level::neon);

}  // namespace nas
