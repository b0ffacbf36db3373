#include "nas/isa.h"

#include <cstdlib>
#include <stdexcept>

namespace nas {

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const IsaLevel& level : known_isas()) {
    if (level.supported(cpu_features())) names.emplace_back(level.name);
  }
  return names;
}

const IsaLevel& isa_named(const std::string& name, const std::string& source) {
  bool known = false;
  for (const IsaLevel& level : known_isas()) {
    if (name != level.name) continue;
    if (level.supported(cpu_features())) return level;
    known = true;
  }
  std::string offered;
  for (const std::string& available : available_isas()) offered += (offered.empty() ? "" : ", ") + available;
  throw std::invalid_argument((known ? "this processor lacks the ISA '" : "unknown ISA '") + name + "' given as " +
                              source + "; available here: " + offered + ".");
}

const IsaLevel& chosen_isa() {
  const char* forced = std::getenv("NAS_FORCE_ISA");
  if (forced != nullptr && *forced != '\0') return isa_named(forced, "NAS_FORCE_ISA");
  return isa_named(available_isas().back(), "the best level");
}

}  // namespace nas
