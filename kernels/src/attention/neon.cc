#include "body.h"

namespace nas {

extern const AttentionKernels attention_neon;
const AttentionKernels attention_neon = {Level::neon, attention_on};

}  // namespace nas
