#include "body.h"

namespace nas {

extern const AttentionKernels attention_avx512_vnni;
const AttentionKernels attention_avx512_vnni = {Level::avx512_vnni, attention_on};

}  // namespace nas
