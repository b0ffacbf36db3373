#include "body.h"

namespace nas {

extern const AttentionKernels attention_avx512;
const AttentionKernels attention_avx512 = {Level::avx512, attention_on};

}  // namespace nas
