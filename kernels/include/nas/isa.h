// Levels of instruction set, and the choice between them at run time.
#pragma once

#include <string>
#include <vector>

#include "nas/cpu.h"
#include "nas/peaks.h"

namespace nas {

// One level: a processor that has it runs these kernels. A level may borrow a kernel from a lower one, so `fp32->isa`
// and `int8->isa` say what really ran.
struct IsaLevel {
  const char* name;
  bool (*supported)(const Features&);
  const Fp32Kernel* fp32;
  const Int8Kernel* int8;
};

// All levels that this build knows, lowest first; `portable` is always the first.
const std::vector<IsaLevel>& known_isas();

// Names that this machine can run, lowest first.
std::vector<std::string> available_isas();

// The level called `name`. Throws std::invalid_argument that lists the available ones when `name` is unknown or this
// machine lacks it; `source` says where the name was given.
const IsaLevel& isa_named(const std::string& name, const std::string& source);

// The level that NAS_FORCE_ISA names, else the best that this machine has. Throws as isa_named does.
const IsaLevel& chosen_isa();

}  // namespace nas
