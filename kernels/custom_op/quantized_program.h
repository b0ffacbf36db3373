// The operator `QuantizedProgram`: a planned model as one node of an ONNX graph.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "abi.h"
#include "nas/program.h"

// Attributes: `program`, the bytes of a planned model, and `batched`, 1 where the first axis of all inputs and outputs is
// free and counts inferences that run one after the other. Inputs and outputs are those of the model, in its order.
class QuantizedProgram {
 public:
  // Reads the attributes; returns what is wrong with them as a status.
  static OrtStatus* make(const Ort& ort, const OrtKernelInfo* info, std::unique_ptr<QuantizedProgram>* made);

  // May be called by several threads at once: each takes memory of its own, and that of finished runs is used again.
  OrtStatus* compute(OrtKernelContext* context);

 private:
  struct Given {
    std::vector<const std::uint8_t*> inputs;
    std::vector<std::uint8_t*> outputs;  // nullptr for one that nobody asked for
    std::int64_t batch = 1;
  };

  QuantizedProgram(const Ort& ort, std::unique_ptr<nas::Program> program, bool batched)
      : ort_(ort), program_(std::move(program)), batched_(batched) {}

  OrtStatus* read_inputs(const OrtKernelContext* context, Given* given) const;
  OrtStatus* make_outputs(OrtKernelContext* context, Given* given) const;
  void run(const Given& given);
  OrtStatus* refuse(const std::string& text) const { return ort_.fail(kOrtInvalidArgument, ("QuantizedProgram: " + text).c_str()); }

  Ort ort_;
  std::unique_ptr<nas::Program> program_;
  bool batched_;
  std::mutex lock_;
  std::vector<std::unique_ptr<nas::Workspace>> idle_;
};
