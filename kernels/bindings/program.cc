#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cache.h"
#include "nas/isa.h"
#include "nas/program.h"
#include "nas/threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

nb::dlpack::dtype dlpack_type(nas::Dtype dtype) {
  switch (dtype) {
    case nas::Dtype::kF32:
      return nb::dtype<float>();
    case nas::Dtype::kI64:
      return nb::dtype<std::int64_t>();
    case nas::Dtype::kI32:
      return nb::dtype<std::int32_t>();
    case nas::Dtype::kBool:
      return nb::dtype<bool>();
    case nas::Dtype::kS8:
      return nb::dtype<std::int8_t>();
    default:
      return nb::dtype<std::uint8_t>();
  }
}

const char* type_name(nas::Dtype dtype) {
  static const char* const names[] = {"uint8", "float", "int64", "bool", "int32", "int8"};
  return names[static_cast<std::uint32_t>(dtype)];
}

nb::tuple shape_of(const nas::TensorRecord& tensor) {
  nb::list sizes;
  for (std::uint32_t axis = 0; axis < tensor.rank; ++axis) sizes.append(tensor.dims[axis]);
  return nb::tuple(sizes);
}

// A program with a lock around its arena. Arrays may hold several inferences behind one another; they run in turn.
class BoundProgram {
 public:
  BoundProgram(const nb::bytes& bytes, const std::optional<std::string>& isa, int threads, std::optional<double> split_ns) {
    if (threads < 1 || threads > nas::kMostParts) {
      const std::string message =
          "threads=" + std::to_string(threads) + "; expected 1 to " + std::to_string(nas::kMostParts) + ".";
      throw nb::value_error(message.c_str());
    }
    const nas::IsaLevel& level = isa ? nas::isa_named(*isa, "isa") : nas::chosen_isa();
    isa_ = level.name;
    std::string wrong;
    {
      const auto* data = static_cast<const std::uint8_t*>(bytes.data());
      const std::size_t size = bytes.size();
      nb::gil_scoped_release released;
      nas::Plan plan;
      wrong = nas::load_plan(data, size, &plan);
      nas::Level kernels = nas::Level::portable;
      if (wrong.empty() && !nas::level_named(level.name, &kernels)) wrong = "its level has no kernels";
      if (wrong.empty()) program_ = nas::Program::make(std::move(plan), kernels, &wrong, {threads, split_ns.value_or(nas::kSplitNs)});
    }
    if (program_ == nullptr) throw nb::value_error(("the planned model was refused: " + wrong).c_str());
  }

  std::string isa() const { return isa_; }
  std::size_t arena_bytes() const { return program_->arena_bytes() + program_->scratch_bytes(); }

  int threads() const { return program_->threads(); }

  // Parts of each step.
  nb::list parts() const {
    nb::list listed;
    for (std::size_t index = 0; index < program_->plan().ops.size(); ++index) listed.append(program_->step(index).parts());
    return listed;
  }

  nb::list inputs() const { return described(program_->plan().inputs); }
  nb::list outputs() const { return described(program_->plan().outputs); }

  nb::list steps() const {
    nb::list listed;
    const nas::Plan& plan = program_->plan();
    for (std::size_t index = 0; index < plan.ops.size(); ++index) {
      const nas::OpRecord& op = plan.ops[index];
      const nas::TensorRecord& out = plan.tensors[op.outputs[0]];
      listed.append(nb::make_tuple(op.name, nas::kind_name(static_cast<std::uint32_t>(op.kind)),
                                   program_->step(index).kernel(), shape_of(out), type_name(out.dtype)));
    }
    return listed;
  }

  std::int64_t most_tokens() const { return program_->most_tokens(); }

  nb::tuple run_cached(CachePool& pool, const std::vector<Array>& arrays, const std::vector<PastArray>& past) {
    check(arrays, 1);
    const std::int64_t before = past.empty() ? 0 : std::int64_t(past[0].shape(2));
    const auto& rows = program_->cache_rows();
    bool fits = past.size() == rows.size() && before <= program_->most_tokens() - program_->new_tokens();
    for (std::size_t buffer = 0; fits && buffer < rows.size(); ++buffer) {
      const PastArray& array = past[buffer];
      fits = array.shape(0) == 1 && std::int64_t(array.shape(1)) == rows[buffer].heads && std::int64_t(array.shape(2)) == before &&
             std::int64_t(array.shape(3)) == rows[buffer].size;
    }
    if (!fits) throw nb::value_error("the caches do not fit the program, or have no room for more tokens.");
    std::unique_ptr<CacheArrays> shown = pool.grown(*program_, past, before);
    std::vector<float*> buffers;
    for (std::vector<float>& memory : shown->cache().memory) buffers.push_back(memory.data());
    const std::int64_t capacity = shown->cache().capacity;
    const nb::list outputs = outputs_of(arrays, 1, [&] { program_->use(buffers, capacity, before); });
    return nb::make_tuple(outputs, arrays_of(std::move(shown)));
  }

  nb::list run(const std::vector<Array>& arrays, std::size_t batch) {
    check(arrays, batch);
    return outputs_of(arrays, batch, [] {});
  }

  template <typename Prepare>
  nb::list outputs_of(const std::vector<Array>& arrays, std::size_t batch, const Prepare& prepare) {
    const nas::Plan& plan = program_->plan();
    std::vector<std::unique_ptr<std::uint8_t[]>> results;
    for (const std::uint32_t id : plan.outputs) results.emplace_back(new std::uint8_t[size_of(id) * batch]);
    {
      nb::gil_scoped_release released;
      const std::lock_guard<std::mutex> alone(lock_);
      prepare();
      for (std::size_t index = 0; index < batch; ++index) {
        fill(arrays, index);
        program_->run();
        for (std::size_t out = 0; out < results.size(); ++out) {
          const std::size_t bytes = size_of(plan.outputs[out]);
          std::memcpy(results[out].get() + index * bytes, program_->data(plan.outputs[out]), bytes);
        }
      }
    }
    nb::list listed;
    for (std::size_t out = 0; out < results.size(); ++out) {
      const nas::TensorRecord& tensor = plan.tensors[plan.outputs[out]];
      std::vector<std::size_t> shape(tensor.dims, tensor.dims + tensor.rank);
      if (!shape.empty()) shape[0] *= batch;
      std::uint8_t* data = results[out].release();
      nb::capsule owner(data, [](void* held) noexcept { delete[] static_cast<std::uint8_t*>(held); });
      listed.append(nb::ndarray<nb::numpy>(data, shape.size(), shape.data(), owner, nullptr, dlpack_type(tensor.dtype)));
    }
    return listed;
  }

  // Seconds of every step in every run, shape (runs, steps).
  nb::ndarray<nb::numpy, double> profile(const std::vector<Array>& arrays, std::size_t warmup, std::size_t runs) {
    check(arrays, 1);
    const std::size_t steps = program_->plan().ops.size();
    std::unique_ptr<double[]> seconds(new double[steps * std::max<std::size_t>(runs, 1)]);
    {
      nb::gil_scoped_release released;
      const std::lock_guard<std::mutex> alone(lock_);
      for (std::size_t index = 0; index < warmup + runs; ++index) {
        fill(arrays, 0);
        program_->run_timed(seconds.get() + (index < warmup ? 0 : index - warmup) * steps);
      }
    }
    double* data = seconds.release();
    nb::capsule owner(data, [](void* held) noexcept { delete[] static_cast<double*>(held); });
    return nb::ndarray<nb::numpy, double>(data, {runs, steps}, owner);
  }

 private:
  std::size_t size_of(std::uint32_t id) const {
    const nas::TensorRecord& tensor = program_->plan().tensors[id];
    return tensor.elements * nas::bytes_of(tensor.dtype);
  }

  nb::list described(const std::vector<std::uint32_t>& ids) const {
    nb::list listed;
    for (const std::uint32_t id : ids) {
      const nas::TensorRecord& tensor = program_->plan().tensors[id];
      listed.append(nb::make_tuple(shape_of(tensor), type_name(tensor.dtype)));
    }
    return listed;
  }

  void check(const std::vector<Array>& arrays, std::size_t batch) const {
    const nas::Plan& plan = program_->plan();
    if (arrays.size() != plan.inputs.size()) {
      const std::string message = std::to_string(arrays.size()) + " inputs were given; the program takes " +
                                  std::to_string(plan.inputs.size()) + ".";
      throw nb::value_error(message.c_str());
    }
    for (std::size_t index = 0; index < arrays.size(); ++index) {
      const nas::TensorRecord& tensor = plan.tensors[plan.inputs[index]];
      if (arrays[index].dtype() != dlpack_type(tensor.dtype) || arrays[index].nbytes() != size_of(plan.inputs[index]) * batch) {
        const std::string message = "input " + std::to_string(index) + " has " + std::to_string(arrays[index].nbytes()) +
                                    " bytes or another type; expected " +
                                    std::to_string(size_of(plan.inputs[index]) * batch) + " bytes of " +
                                    type_name(tensor.dtype) + ".";
        throw nb::value_error(message.c_str());
      }
    }
  }

  void fill(const std::vector<Array>& arrays, std::size_t index) {
    for (std::size_t input = 0; input < arrays.size(); ++input) {
      const std::uint32_t id = program_->plan().inputs[input];
      const std::size_t bytes = size_of(id);
      std::memcpy(program_->data(id), static_cast<const std::uint8_t*>(arrays[input].data()) + index * bytes, bytes);
    }
  }

  std::unique_ptr<nas::Program> program_;
  std::mutex lock_;
  std::string isa_;
};

}  // namespace

void bind_program(nb::module_& m) {
  m.def("most_threads", &nas::most_threads, "Processors that this process was allowed when it loaded this module.");
  nb::class_<CachePool>(m, "CachePool", "Memory for the keys and values of texts, shared by the programs of a model.")
      .def(nb::init<>());
  nb::class_<BoundProgram>(m, "Program", "A planned model, ready to run on this processor.")
      .def(nb::init<const nb::bytes&, const std::optional<std::string>&, int, std::optional<double>>(), "plan"_a,
           "isa"_a = nb::none(), "threads"_a = 1, "split_ns"_a = nb::none())
      .def_prop_ro("threads", &BoundProgram::threads, "Threads that run it: 1 where no step is worth sharing.")
      .def_prop_ro("parts", &BoundProgram::parts, "Of each operator, in how many parts threads compute it.")
      .def_prop_ro("isa", &BoundProgram::isa, "Name of the level whose kernels were allowed.")
      .def_prop_ro("arena_bytes", &BoundProgram::arena_bytes, "Memory for all tensors.")
      .def_prop_ro("inputs", &BoundProgram::inputs, "Shape and type of each input.")
      .def_prop_ro("outputs", &BoundProgram::outputs, "Shape and type of each output.")
      .def_prop_ro("steps", &BoundProgram::steps, "Name, kind, kernel, output shape and type of each operator.")
      .def("run", &BoundProgram::run, "inputs"_a, "batch"_a = 1, "Run `batch` inferences and return the outputs.")
      .def_prop_ro("most_tokens", &BoundProgram::most_tokens, "Tokens that its cache holds; 0 without a cache.")
      .def("run_cached", &BoundProgram::run_cached, "pool"_a, "inputs"_a, "past"_a,
           "Run after the keys and values `past`; return the outputs and the grown keys and values, read-only.")
      .def("profile", &BoundProgram::profile, "inputs"_a, "warmup"_a, "runs"_a, "Seconds of each operator in each run.");
}
