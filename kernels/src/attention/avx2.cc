#include "body.h"

namespace nas {

extern const AttentionKernels attention_avx2;
const AttentionKernels attention_avx2 = {Level::avx2, attention_on};

}  // namespace nas
