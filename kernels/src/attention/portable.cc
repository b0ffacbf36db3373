#include "body.h"

namespace nas {

extern const AttentionKernels attention_portable;
const AttentionKernels attention_portable = {Level::portable, attention_on};

}  // namespace nas
