// Levels of instruction set, and the choice between them without exceptions. nas/isa.h gives the same to Python.
#pragma once

#include "nas/cpu.h"

namespace nas {

// Lowest first within an architecture. A build knows `portable` and the levels of its own architecture. avx512vl_vnni is
// avx_vnni in the encoding of AVX-512: the same sources on vectors of 256 bits, for processors that have only the latter.
enum class Level { portable, avx2, avx_vnni, avx512vl_vnni, avx512, avx512_vnni, neon, neondot, neoni8mm };

// The name that NAS_FORCE_ISA takes.
const char* level_name(Level level);

// Whether this build and this processor have the level.
bool level_available(Level level);

// The level called `name`, whether available or not; false when no level of any architecture has that name.
bool level_named(const char* name, Level* level);

// The highest available level.
Level best_level();

// The level that NAS_FORCE_ISA names, else the best. False, with the name left in *refused, when the variable names a
// level that is unknown or not available here.
bool chosen_level(Level* level, const char** refused);

}  // namespace nas
