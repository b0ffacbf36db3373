// How a convolution is cut into parts that threads compute side by side.
#pragma once

#include <cstddef>
#include <vector>

#include "conv.h"
#include "nas/part.h"

namespace nas {

enum class Cut {
  none,
  lines,    // one kernel runs on some images, lines or, where windows are single pixels, pixels
  outputs,  // a kernel of its own for some outputs
};

// What of a convolution one part is, as a convolution of its own between the same two maps.
struct ConvSlice {
  ConvShape shape;
  std::ptrdiff_t in = 0, out = 0;  // elements from the start of both maps
  std::int64_t first_output = 0;
};

// Multiplications with weights.
double macs_of(const ConvShape& shape);

// Whether a cut gives so many parts, none of them empty.
bool can_cut(const ConvShape& shape, Cut cut, int parts);

// By lines, so that a thread reads what it wrote a step before: fetching a map from another core's cache was measured to
// take as long as reading some five times as many weights. Where there are more weights than that, by outputs; none where
// neither gives `parts` parts.
Cut best_cut(const ConvShape& shape, int parts);

// The parts of a cut, `parts` of them, together the whole; one, the whole, for Cut::none.
std::vector<ConvSlice> slices_of(const ConvShape& shape, Cut cut, int parts);

}  // namespace nas
