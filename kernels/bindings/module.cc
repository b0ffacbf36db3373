#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>

#include "nas/isa.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <typename T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

nb::dict cpu_features() {
  nb::dict features;
  for (const auto& [name, present] : nas::named_cpu_features()) features[name.c_str()] = present;
  return features;
}

nb::dict measure_peaks(double seconds) {
  nas::MeasuredPeaks peaks{};
  {
    nb::gil_scoped_release released;
    peaks = nas::measure_peaks(seconds);
  }
  nb::dict result;
  result["fp32_gmacs"] = peaks.fp32_gmacs;
  result["int8_gmacs"] = peaks.int8_gmacs;
  result["bandwidth_gbs"] = peaks.bandwidth_gbs;
  result["fp32_isa"] = peaks.fp32_isa;
  result["int8_isa"] = peaks.int8_isa;
  return result;
}

nb::tuple dot_u8s8(const Vector<std::uint8_t>& a, const Vector<std::int8_t>& b, const std::optional<std::string>& isa) {
  if (a.shape(0) != b.shape(0)) {
    const std::string message = "a has " + std::to_string(a.shape(0)) + " elements and b has " +
                                std::to_string(b.shape(0)) + "; expected equal lengths.";
    throw nb::value_error(message.c_str());
  }
  const nas::IsaLevel& level = isa ? nas::isa_named(*isa, "isa") : nas::chosen_isa();
  const std::size_t length = a.shape(0);
  std::int64_t sum = 0;
  {
    nb::gil_scoped_release released;
    sum = nas::dot_u8s8(*level.int8, a.data(), b.data(), length);
  }
  return nb::make_tuple(sum, level.int8->isa);
}

}  // namespace

void bind_program(nb::module_& m);

NB_MODULE(_kernels, m) {
  m.doc() = "Runs planned models, and says what this processor offers and how fast one core of it is at most.";
  m.def("cpu_features", &cpu_features, "Return which vector extensions this machine's processor and kernel offer.");
  m.def("available_isas", &nas::available_isas, "Return the names that NAS_FORCE_ISA takes here, slowest first.");
  m.def("chosen_isa", [] { return std::string(nas::chosen_isa().name); },
        "Return the name of the level that NAS_FORCE_ISA names, else of the best.");
  m.def("measure_peaks", &measure_peaks, "seconds"_a, "Measure the upper bounds of one core.");
  m.def("dot_u8s8", &dot_u8s8, "a"_a.noconvert(), "b"_a.noconvert(), "isa"_a = nb::none(),
        "Return the exact dot product and the name of the ISA whose kernel computed it.");
  bind_program(m);
}
