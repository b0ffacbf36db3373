// The part of ONNX Runtime's C interface that a library of operators needs. Its wheels bring no header, and its layout is
// fixed: functions of the first version keep their place in the table for good, members of OrtCustomOp are only appended.
#pragma once

#include <cstddef>
#include <cstdint>

struct OrtStatus;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtValue;
struct OrtTensorTypeAndShapeInfo;

// A table of functions, all of its first version's 102 and then more.
struct OrtApi {
  const void* functions[102];
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(std::uint32_t version);  // nullptr for a version newer than the library
  const char* (*GetVersionString)();
};

// Version 16 (ONNX Runtime 1.16) lets a kernel report failure as a status.
constexpr std::uint32_t kOrtApiVersion = 16;

enum OrtErrorCode : int { kOrtFail = 1, kOrtInvalidArgument = 2 };
enum OrtElementType : int { kOrtUndefined = 0, kOrtFloat = 1, kOrtUint8 = 2, kOrtInt8 = 3, kOrtInt32 = 6, kOrtInt64 = 7, kOrtBool = 9 };
enum OrtCharacteristic : int { kOrtRequired = 0, kOrtOptional = 1, kOrtVariadic = 2 };

// As far as version 16 goes.
struct OrtCustomOp {
  std::uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  OrtElementType (*GetInputType)(const OrtCustomOp*, std::size_t);
  std::size_t (*GetInputTypeCount)(const OrtCustomOp*);
  OrtElementType (*GetOutputType)(const OrtCustomOp*, std::size_t);
  std::size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void*, OrtKernelContext*);
  void (*KernelDestroy)(void*);
  OrtCharacteristic (*GetInputCharacteristic)(const OrtCustomOp*, std::size_t);
  OrtCharacteristic (*GetOutputCharacteristic)(const OrtCustomOp*, std::size_t);
  int (*GetInputMemoryType)(const OrtCustomOp*, std::size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
};

// Calls by name. What returns a status returns nullptr for success; the caller owns it.
class Ort {
 public:
  explicit Ort(const OrtApi* api) : api_(api) {}
  const OrtApi* table() const { return api_; }

  OrtStatus* fail(OrtErrorCode code, const char* text) const { return at<0, OrtStatus*>(int(code), text); }
  void release(OrtStatus* status) const { at<93, void>(status); }

  OrtStatus* create_domain(const char* name, OrtCustomOpDomain** domain) const { return at<26, OrtStatus*>(name, domain); }
  OrtStatus* add(OrtCustomOpDomain* domain, const OrtCustomOp* op) const { return at<27, OrtStatus*>(domain, op); }
  OrtStatus* add(OrtSessionOptions* options, OrtCustomOpDomain* domain) const { return at<28, OrtStatus*>(options, domain); }

  OrtStatus* attribute(const OrtKernelInfo* info, const char* name, std::int64_t* value) const {
    return at<86, OrtStatus*>(info, name, value);
  }
  // With `out` nullptr only the size is told, a closing zero included.
  OrtStatus* attribute(const OrtKernelInfo* info, const char* name, char* out, std::size_t* size) const {
    return at<87, OrtStatus*>(info, name, out, size);
  }

  OrtStatus* count_inputs(const OrtKernelContext* context, std::size_t* count) const { return at<88, OrtStatus*>(context, count); }
  OrtStatus* count_outputs(const OrtKernelContext* context, std::size_t* count) const { return at<89, OrtStatus*>(context, count); }
  OrtStatus* input(const OrtKernelContext* context, std::size_t index, const OrtValue** value) const {
    return at<90, OrtStatus*>(context, index, value);
  }
  // Allocates the output; *value is nullptr for one that nobody asked for.
  OrtStatus* output(OrtKernelContext* context, std::size_t index, const std::int64_t* sizes, std::size_t rank, OrtValue** value) const {
    return at<91, OrtStatus*>(context, index, sizes, rank, value);
  }

  OrtStatus* is_tensor(const OrtValue* value, int* yes) const { return at<50, OrtStatus*>(value, yes); }
  OrtStatus* data(OrtValue* value, void** bytes) const { return at<51, OrtStatus*>(value, bytes); }
  OrtStatus* type_and_shape(const OrtValue* value, OrtTensorTypeAndShapeInfo** info) const { return at<65, OrtStatus*>(value, info); }
  void release(OrtTensorTypeAndShapeInfo* info) const { at<99, void>(info); }
  OrtStatus* element_type(const OrtTensorTypeAndShapeInfo* info, OrtElementType* type) const { return at<60, OrtStatus*>(info, type); }
  OrtStatus* rank(const OrtTensorTypeAndShapeInfo* info, std::size_t* rank) const { return at<61, OrtStatus*>(info, rank); }
  OrtStatus* sizes(const OrtTensorTypeAndShapeInfo* info, std::int64_t* sizes, std::size_t rank) const {
    return at<62, OrtStatus*>(info, sizes, rank);
  }

 private:
  template <std::size_t kPlace, typename Result, typename... Arguments>
  Result at(Arguments... arguments) const {
    return reinterpret_cast<Result (*)(Arguments...)>(reinterpret_cast<std::uintptr_t>(api_->functions[kPlace]))(arguments...);
  }

  const OrtApi* api_;
};
