#include "body.h"

namespace nas {

extern const ElementwiseKernels elementwise_portable;
const ElementwiseKernels elementwise_portable = NAS_ELEMENTWISE_KERNELS(Level::portable);

}  // namespace nas
