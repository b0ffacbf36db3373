#include "slices.h"

#include <algorithm>

namespace nas {
namespace {

constexpr int kOutputs = 16;            // a part's outputs come in multiples of what every kernel takes at a time
constexpr double kWeightsOverMaps = 5;  // see best_cut
constexpr std::int64_t kRows = 12;      // products of many pixels are cut at whole tiles of the largest kernel

bool dense(const ConvShape& s) { return s.groups == 1; }
bool pixelwise(const ConvShape& s) {
  return dense(s) && s.kernel_h == 1 && s.kernel_w == 1 && s.stride_h == 1 && s.stride_w == 1 &&
         s.pad_top + s.pad_left + s.pad_bottom + s.pad_right == 0;
}

// What can be cut without cutting a line: images, or pixels, or lines of the only image. Windows that lie in the padding
// altogether are left to one thread.
std::int64_t lines_of(const ConvShape& s) {
  if (pixelwise(s)) return std::int64_t(s.batch) * s.height * s.width;
  if (s.batch > 1) return s.batch;
  return s.pad_top < s.kernel_h && s.pad_bottom < s.kernel_h ? s.out_height : 1;
}

ConvSlice of_lines(const ConvShape& whole, Part part) {
  ConvSlice slice{whole};
  ConvShape& s = slice.shape;
  const std::int64_t lines = lines_of(whole);
  if (pixelwise(whole)) {
    const Span pixels = share(lines, part, lines >= 4 * part.count * kRows ? kRows : 1);
    s.batch = s.height = s.out_height = 1;
    s.width = s.out_width = int(pixels.size());
    slice.in = pixels.first * s.in_pixel;
    slice.out = pixels.first * s.out_pixel;
    return slice;
  }
  const Span span = share(lines, part);
  if (whole.batch > 1) {
    s.batch = int(span.size());
    slice.in = span.first * s.height * s.width * s.in_pixel;
    slice.out = span.first * s.out_height * s.out_width * s.out_pixel;
    return slice;
  }
  // Rows of the map under the windows of these lines; what is above and below the map is padding as before.
  const int top = int(span.first) * s.stride_h - s.pad_top, bottom = int(span.end - 1) * s.stride_h - s.pad_top + s.kernel_h;
  const int first = std::max(top, 0), end = std::min(bottom, whole.height);
  s.out_height = int(span.size());
  s.height = end - first;
  s.pad_top = first - top;
  s.pad_bottom = bottom - end;
  slice.in = std::ptrdiff_t(first) * s.width * s.in_pixel;
  slice.out = std::ptrdiff_t(span.first) * s.out_width * s.out_pixel;
  return slice;
}

ConvSlice of_outputs(const ConvShape& whole, Part part) {
  ConvSlice slice{whole};
  ConvShape& s = slice.shape;
  const Span span = share(whole.outputs, part, kOutputs);
  s.outputs = int(span.size());
  slice.out = slice.first_output = span.first;
  if (dense(whole)) return slice;
  s.channels = s.groups = s.outputs;
  slice.in = span.first;
  return slice;
}

}  // namespace

double macs_of(const ConvShape& s) {
  return double(s.batch) * s.out_height * s.out_width * s.outputs * s.taps();
}

bool can_cut(const ConvShape& s, Cut cut, int parts) {
  if (cut == Cut::lines) return lines_of(s) >= parts;
  // A channel left alone would be taken for a dense convolution of one channel, whose pixels are neighbours.
  const bool cuttable = dense(s) || (s.depthwise() && s.outputs % kOutputs != 1);
  return cut == Cut::outputs && cuttable && s.outputs > kOutputs * (parts - 1);
}

Cut best_cut(const ConvShape& s, int parts) {
  const bool lines = can_cut(s, Cut::lines, parts), outputs = can_cut(s, Cut::outputs, parts);
  if (parts < 2 || !(lines || outputs)) return Cut::none;
  if (!lines || !outputs) return lines ? Cut::lines : Cut::outputs;
  const double weights = double(s.outputs) * s.taps();
  const double maps = double(s.inputs_size()) + double(s.batch) * s.out_height * s.out_width * s.outputs;
  return dense(s) && weights > kWeightsOverMaps * maps ? Cut::outputs : Cut::lines;
}

std::vector<ConvSlice> slices_of(const ConvShape& shape, Cut cut, int parts) {
  if (cut == Cut::none) return {ConvSlice{shape}};
  std::vector<ConvSlice> slices;
  for (int index = 0; index < parts; ++index) {
    slices.push_back(cut == Cut::lines ? of_lines(shape, {index, parts}) : of_outputs(shape, {index, parts}));
  }
  return slices;
}

}  // namespace nas
