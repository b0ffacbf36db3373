#include "quantized_program.h"

#include <cstring>

#include "nas/level.h"

namespace {

constexpr std::size_t kMostAxes = nas::kMostAxes;

OrtElementType element_type(nas::Dtype dtype) {
  switch (dtype) {
    case nas::Dtype::kF32:
      return kOrtFloat;
    case nas::Dtype::kI64:
      return kOrtInt64;
    case nas::Dtype::kBool:
      return kOrtBool;
    case nas::Dtype::kI32:
      return kOrtInt32;
    case nas::Dtype::kS8:
      return kOrtInt8;
    default:
      return kOrtUint8;
  }
}

std::size_t bytes_of(const nas::TensorRecord& tensor) { return tensor.elements * nas::bytes_of(tensor.dtype); }

std::string described(const std::int64_t* sizes, std::size_t rank) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < rank; ++axis) text += (axis == 0 ? "" : ", ") + std::to_string(sizes[axis]);
  return text + ")";
}

// Type and shape of a value that lives no longer than the call that reads it.
struct Described {
  OrtElementType type = kOrtUndefined;
  std::size_t rank = 0;
  std::int64_t sizes[kMostAxes] = {};
};

OrtStatus* describe(const Ort& ort, const OrtValue* value, Described* found) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  if (OrtStatus* wrong = ort.type_and_shape(value, &info)) return wrong;
  OrtStatus* wrong = ort.element_type(info, &found->type);
  if (wrong == nullptr) wrong = ort.rank(info, &found->rank);
  // Of more axes than a program knows only the number is told.
  if (wrong == nullptr && found->rank <= kMostAxes) wrong = ort.sizes(info, found->sizes, found->rank);
  ort.release(info);
  return wrong;
}

OrtStatus* read_program(const Ort& ort, const OrtKernelInfo* info, std::vector<std::uint8_t>* bytes) {
  std::size_t size = 0;
  if (OrtStatus* wrong = ort.attribute(info, "program", nullptr, &size)) return wrong;
  bytes->resize(size);
  if (OrtStatus* wrong = ort.attribute(info, "program", reinterpret_cast<char*>(bytes->data()), &size)) return wrong;
  if (!bytes->empty()) bytes->pop_back();  // the closing zero
  return nullptr;
}

}  // namespace

OrtStatus* QuantizedProgram::make(const Ort& ort, const OrtKernelInfo* info, std::unique_ptr<QuantizedProgram>* made) {
  std::int64_t batched = 0;
  if (OrtStatus* wrong = ort.attribute(info, "batched", &batched)) return wrong;
  std::vector<std::uint8_t> bytes;
  if (OrtStatus* wrong = read_program(ort, info, &bytes)) return wrong;
  nas::Level level{};
  const char* refused = nullptr;
  std::string wrong;
  std::unique_ptr<nas::Program> program;
  nas::Plan plan;
  if (!nas::chosen_level(&level, &refused)) wrong = std::string("NAS_FORCE_ISA names a level that is not available: ") + refused;
  if (wrong.empty()) wrong = nas::load_plan(bytes.data(), bytes.size(), &plan);
  if (wrong.empty()) program = nas::Program::make(std::move(plan), level, &wrong);
  if (wrong.empty() && !program->cache_rows().empty()) wrong = "it keeps keys and values, which this operator does not carry";
  if (wrong.empty() && program->plan().inputs.empty()) wrong = "it has no input";
  if (!wrong.empty()) {
    return ort.fail(kOrtInvalidArgument, ("QuantizedProgram: the planned model was refused: " + wrong).c_str());
  }
  made->reset(new QuantizedProgram(ort, std::move(program), batched != 0));
  return nullptr;
}

OrtStatus* QuantizedProgram::compute(OrtKernelContext* context) {
  Given given;
  if (OrtStatus* wrong = read_inputs(context, &given)) return wrong;
  if (OrtStatus* wrong = make_outputs(context, &given)) return wrong;
  run(given);
  return nullptr;
}

OrtStatus* QuantizedProgram::read_inputs(const OrtKernelContext* context, Given* given) const {
  const nas::Plan& plan = program_->plan();
  std::size_t count = 0;
  if (OrtStatus* wrong = ort_.count_inputs(context, &count)) return wrong;
  if (count != plan.inputs.size()) {
    return refuse(std::to_string(count) + " inputs were given; the program takes " + std::to_string(plan.inputs.size()));
  }
  for (std::size_t index = 0; index < count; ++index) {
    const nas::TensorRecord& tensor = plan.tensors[plan.inputs[index]];
    const OrtValue* value = nullptr;
    int dense = 0;
    if (OrtStatus* wrong = ort_.input(context, index, &value)) return wrong;
    if (value != nullptr) {
      if (OrtStatus* wrong = ort_.is_tensor(value, &dense)) return wrong;
    }
    if (dense == 0) return refuse("input " + std::to_string(index) + " is no tensor");
    Described found;
    if (OrtStatus* wrong = describe(ort_, value, &found)) return wrong;
    std::int64_t expected[kMostAxes];
    for (std::uint32_t axis = 0; axis < tensor.rank; ++axis) expected[axis] = tensor.dims[axis];
    if (batched_ && tensor.rank > 0 && found.rank > 0) {
      if (index == 0) given->batch = found.sizes[0];
      expected[0] = given->batch;
    }
    bool fits = found.type == element_type(tensor.dtype) && found.rank == tensor.rank && given->batch > 0;
    for (std::uint32_t axis = 0; fits && axis < tensor.rank; ++axis) fits = found.sizes[axis] == expected[axis];
    if (!fits) {
      return refuse("input " + std::to_string(index) + " has ONNX type " + std::to_string(found.type) + " and shape " +
                    (found.rank <= kMostAxes ? described(found.sizes, found.rank) : "of too many axes") + "; expected type " +
                    std::to_string(element_type(tensor.dtype)) + " and shape " + described(expected, tensor.rank) +
                    (batched_ ? ", the first size being any number of inferences" : ""));
    }
    void* data = nullptr;
    if (OrtStatus* wrong = ort_.data(const_cast<OrtValue*>(value), &data)) return wrong;
    given->inputs.push_back(static_cast<const std::uint8_t*>(data));
  }
  return nullptr;
}

OrtStatus* QuantizedProgram::make_outputs(OrtKernelContext* context, Given* given) const {
  const nas::Plan& plan = program_->plan();
  std::size_t count = 0;
  if (OrtStatus* wrong = ort_.count_outputs(context, &count)) return wrong;
  if (count != plan.outputs.size()) {
    return refuse("the node has " + std::to_string(count) + " outputs; the program gives " + std::to_string(plan.outputs.size()));
  }
  for (std::size_t index = 0; index < count; ++index) {
    const nas::TensorRecord& tensor = plan.tensors[plan.outputs[index]];
    std::int64_t sizes[kMostAxes];
    for (std::uint32_t axis = 0; axis < tensor.rank; ++axis) sizes[axis] = tensor.dims[axis];
    if (batched_ && tensor.rank > 0) sizes[0] *= given->batch;
    OrtValue* value = nullptr;
    if (OrtStatus* wrong = ort_.output(context, index, sizes, tensor.rank, &value)) return wrong;
    if (value == nullptr) {
      given->outputs.push_back(nullptr);
      continue;
    }
    // The buffer has the type that the file declares, which need not be the program's.
    Described found;
    if (OrtStatus* wrong = describe(ort_, value, &found)) return wrong;
    if (found.type != element_type(tensor.dtype)) {
      return refuse("output " + std::to_string(index) + " is declared with ONNX type " + std::to_string(found.type) +
                    "; the program gives type " + std::to_string(element_type(tensor.dtype)));
    }
    if (given->batch > 1 && !(batched_ && tensor.rank > 0)) return refuse("an output has no axis for several inferences");
    void* data = nullptr;
    if (OrtStatus* wrong = ort_.data(value, &data)) return wrong;
    given->outputs.push_back(static_cast<std::uint8_t*>(data));
  }
  return nullptr;
}

void QuantizedProgram::run(const Given& given) {
  const nas::Plan& plan = program_->plan();
  std::unique_ptr<nas::Workspace> workspace;
  {
    const std::lock_guard<std::mutex> alone(lock_);
    if (!idle_.empty()) {
      workspace = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (workspace == nullptr) workspace = program_->make_workspace();
  for (std::int64_t inference = 0; inference < given.batch; ++inference) {
    for (std::size_t index = 0; index < given.inputs.size(); ++index) {
      const nas::TensorRecord& tensor = plan.tensors[plan.inputs[index]];
      const std::size_t size = bytes_of(tensor);
      std::memcpy(workspace->data(tensor), given.inputs[index] + std::size_t(inference) * size, size);
    }
    program_->run(*workspace);
    for (std::size_t index = 0; index < given.outputs.size(); ++index) {
      if (given.outputs[index] == nullptr) continue;
      const nas::TensorRecord& tensor = plan.tensors[plan.outputs[index]];
      const std::size_t size = bytes_of(tensor);
      std::memcpy(given.outputs[index] + std::size_t(inference) * size, workspace->data(tensor), size);
    }
  }
  const std::lock_guard<std::mutex> alone(lock_);
  idle_.push_back(std::move(workspace));
}
