#include "body.h"

namespace nas {

extern const ElementwiseKernels elementwise_avx512;
const ElementwiseKernels elementwise_avx512 = NAS_ELEMENTWISE_KERNELS(Level::avx512);

}  // namespace nas
