#include "body.h"

namespace nas {

extern const NormKernels norm_portable;
const NormKernels norm_portable = NAS_NORM_KERNELS(Level::portable);

}  // namespace nas
