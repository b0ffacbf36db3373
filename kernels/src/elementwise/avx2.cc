#include "body.h"

namespace nas {

extern const ElementwiseKernels elementwise_avx2;
const ElementwiseKernels elementwise_avx2 = NAS_ELEMENTWISE_KERNELS(Level::avx2);

}  // namespace nas
