#include "nas/level.h"

#include <cstdlib>
#include <cstring>

namespace nas {
namespace {

struct Known {
  Level level;
  const char* name;
  bool (*available)(const Features&);
};

bool never(const Features&) { return false; }

#if defined(__x86_64__)
#define NAS_X86(condition) [](const Features& f) { return condition; }
#define NAS_ARM(condition) never
#elif defined(__aarch64__)
#define NAS_X86(condition) never
#define NAS_ARM(condition) [](const Features& f) { return condition; }
#else
#define NAS_X86(condition) never
#define NAS_ARM(condition) never
#endif

// Every processor with AVX-512 but Xeon Phi has BW and VL too, and the kernels use them.
constexpr Known kKnown[] = {
    {Level::portable, "portable", [](const Features&) { return true; }},
    {Level::avx2, "avx2", NAS_X86(f.avx2 && f.fma)},
    {Level::avx_vnni, "avx_vnni", NAS_X86(f.avx2 && f.fma && f.avx_vnni)},
    {Level::avx512vl_vnni, "avx512vl_vnni",
     NAS_X86(f.avx2 && f.fma && f.avx512f && f.avx512bw && f.avx512vl && f.avx512_vnni)},
    {Level::avx512, "avx512", NAS_X86(f.avx2 && f.fma && f.avx512f && f.avx512bw && f.avx512vl)},
    {Level::avx512_vnni, "avx512_vnni",
     NAS_X86(f.avx2 && f.fma && f.avx512f && f.avx512bw && f.avx512vl && f.avx512_vnni)},
    {Level::neon, "neon", NAS_ARM(f.asimd)},
    {Level::neondot, "neondot", NAS_ARM(f.asimd && f.asimddp)},
    {Level::neoni8mm, "neoni8mm", NAS_ARM(f.asimd && f.asimddp && f.i8mm)},
};

}  // namespace

const char* level_name(Level level) { return kKnown[static_cast<int>(level)].name; }

bool level_available(Level level) { return kKnown[static_cast<int>(level)].available(cpu_features()); }

bool level_named(const char* name, Level* level) {
  for (const Known& known : kKnown) {
    if (std::strcmp(name, known.name) != 0) continue;
    *level = known.level;
    return true;
  }
  return false;
}

Level best_level() {
  Level best = Level::portable;
  for (const Known& known : kKnown) {
    if (level_available(known.level)) best = known.level;
  }
  return best;
}

bool chosen_level(Level* level, const char** refused) {
  const char* forced = std::getenv("NAS_FORCE_ISA");
  if (forced == nullptr || *forced == '\0') {
    *level = best_level();
    return true;
  }
  if (level_named(forced, level) && level_available(*level)) return true;
  *refused = forced;
  return false;
}

}  // namespace nas
