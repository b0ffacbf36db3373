// What ONNX Runtime calls when it is given this library: RegisterCustomOps.
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "abi.h"
#include "quantized_program.h"

namespace {

constexpr const char* kDomain = "hwnas";

// No exception leaves this library.
template <typename Body>
OrtStatus* guarded(const Ort& ort, const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return ort.fail(kOrtFail, "QuantizedProgram: out of memory (bad_alloc)");
  } catch (...) {
    return ort.fail(kOrtFail, "QuantizedProgram: an unforeseen exception");
  }
}

struct Kernel {
  Ort ort;
  std::unique_ptr<QuantizedProgram> program;
};

OrtStatus* create(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
  const Ort ort(api);
  return guarded(ort, [&]() -> OrtStatus* {
    std::unique_ptr<QuantizedProgram> program;
    if (OrtStatus* wrong = QuantizedProgram::make(ort, info, &program)) return wrong;
    *kernel = new Kernel{ort, std::move(program)};
    return nullptr;
  });
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) {
  Kernel& made = *static_cast<Kernel*>(kernel);
  return guarded(made.ort, [&] { return made.program->compute(context); });
}

const OrtCustomOp* quantized_program() {
  static const OrtCustomOp op = [] {
    OrtCustomOp made{};
    made.version = kOrtApiVersion;
    made.GetName = [](const OrtCustomOp*) { return "QuantizedProgram"; };
    made.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // the processor
    made.GetInputType = [](const OrtCustomOp*, std::size_t) { return kOrtUndefined; };
    made.GetInputTypeCount = [](const OrtCustomOp*) -> std::size_t { return 1; };
    made.GetOutputType = made.GetInputType;
    made.GetOutputTypeCount = made.GetInputTypeCount;
    made.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    made.GetInputCharacteristic = [](const OrtCustomOp*, std::size_t) { return kOrtVariadic; };
    made.GetOutputCharacteristic = made.GetInputCharacteristic;
    made.GetInputMemoryType = [](const OrtCustomOp*, std::size_t) { return 0; };
    made.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
    made.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
    made.GetVariadicOutputMinArity = made.GetVariadicInputMinArity;
    made.GetVariadicOutputHomogeneity = made.GetVariadicInputHomogeneity;
    made.CreateKernelV2 = create;
    made.KernelComputeV2 = compute;
    return made;
  }();
  return &op;
}

// One domain for each ONNX Runtime in the process, kept for good: sessions look into it for as long as they live.
OrtStatus* domain_of(const Ort& ort, OrtCustomOpDomain** domain) {
  static std::mutex lock;
  static auto* const known = new std::vector<std::pair<const OrtApi*, OrtCustomOpDomain*>>();
  const std::lock_guard<std::mutex> alone(lock);
  for (const auto& [table, made] : *known) {
    if (table == ort.table()) *domain = made;
  }
  if (*domain != nullptr) return nullptr;
  if (OrtStatus* wrong = ort.create_domain(kDomain, domain)) return wrong;
  if (OrtStatus* wrong = ort.add(*domain, quantized_program())) return wrong;
  known->emplace_back(ort.table(), *domain);
  return nullptr;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(kOrtApiVersion);
  if (api == nullptr) {
    // How a status is made has not changed since the first version.
    const std::string text = std::string("the operators of hwnas need ONNX Runtime 1.16 or newer; this is ") + base->GetVersionString();
    return Ort(base->GetApi(1)).fail(kOrtFail, text.c_str());
  }
  const Ort ort(api);
  return guarded(ort, [&]() -> OrtStatus* {
    OrtCustomOpDomain* domain = nullptr;
    if (OrtStatus* wrong = domain_of(ort, &domain)) return wrong;
    return ort.add(options, domain);
  });
}
