#include "body.h"

namespace nas {

extern const ElementwiseKernels elementwise_neon;
const ElementwiseKernels elementwise_neon = NAS_ELEMENTWISE_KERNELS(Level::neon);

}  // namespace nas
