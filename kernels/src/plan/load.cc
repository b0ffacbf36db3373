#include <cstring>

#include "nas/plan.h"

namespace nas {
namespace {

constexpr char kMagic[8] = {'N', 'A', 'S', 'P', 'L', 'A', 'N', '1'};
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 32;
constexpr std::size_t kHeadBytes = 8 + 8 + 5 * 4 + 8 + 8;

// Reads forward only and remembers that it ran out, so that callers check once per record.
class Reader {
 public:
  Reader(const std::uint8_t* data, std::size_t size) : at_(data), left_(size) {}

  template <typename T>
  T take() {
    T value{};
    if (left_ < sizeof(T)) {
      failed_ = true;
      left_ = 0;
      return value;
    }
    std::memcpy(&value, at_, sizeof(T));
    at_ += sizeof(T);
    left_ -= sizeof(T);
    return value;
  }

  // A list with its length before it; the length is believed only as far as the bytes at hand go.
  template <typename T>
  std::vector<T> list() {
    const std::uint64_t count = take<std::uint32_t>();
    std::vector<T> values;
    if (count > left_ / sizeof(T)) {
      failed_ = true;
      left_ = 0;
      return values;
    }
    values.resize(count);
    if (count > 0) std::memcpy(values.data(), at_, count * sizeof(T));
    at_ += count * sizeof(T);
    left_ -= count * sizeof(T);
    return values;
  }

  bool failed() const { return failed_; }
  std::size_t left() const { return left_; }

 private:
  const std::uint8_t* at_;
  std::size_t left_;
  bool failed_ = false;
};

std::string read_tensor(Reader& body, std::uint64_t arena, TensorRecord* tensor) {
  const std::uint32_t dtype = body.take<std::uint32_t>();
  tensor->offset = body.take<std::uint64_t>();
  tensor->rank = body.take<std::uint32_t>();
  if (body.failed() || dtype >= kDtypes || tensor->rank > kMostAxes) return "a tensor's record is damaged";
  tensor->dtype = static_cast<Dtype>(dtype);
  tensor->elements = 1;
  for (std::uint32_t axis = 0; axis < kMostAxes; ++axis) {
    tensor->dims[axis] = axis < tensor->rank ? body.take<std::uint32_t>() : 1;
    if (tensor->dims[axis] == 0 || tensor->dims[axis] > kMostBytes / tensor->elements) return "a tensor has a size of 0 or too many elements";
    tensor->elements *= tensor->dims[axis];
  }
  const std::uint64_t bytes = tensor->elements * bytes_of(tensor->dtype);
  if (body.failed() || tensor->offset % 64 != 0 || bytes > arena || tensor->offset > arena - bytes) {
    return "a tensor lies outside the arena";
  }
  return "";
}

std::uint8_t* align(std::vector<std::uint8_t>* memory, std::uint64_t bytes) {
  memory->resize(bytes + 128);  // 64 bytes behind the end may be read
  return memory->data() + (64 - reinterpret_cast<std::uintptr_t>(memory->data()) % 64) % 64;
}

// How weights of 4 bits lie in the file: value times multiplier, where each `group` values of an output's row share a
// multiplier. Rows go by channel and then window in the file, by window and then channel when expanded.
struct Grouped {
  std::uint64_t channels, window, group;

  std::uint64_t row() const { return channels * window; }
  std::uint64_t groups() const { return (row() + group - 1) / group; }
};

unsigned half(const std::uint8_t* bytes, std::uint64_t index) { return bytes[index / 2] >> (index % 2 * 4) & 15U; }

void expand(const std::uint8_t* values, const std::uint8_t* multipliers, const Grouped& form, std::uint64_t outputs,
            std::uint8_t* to) {
  for (std::uint64_t output = 0; output < outputs; ++output) {
    for (std::uint64_t at = 0; at < form.row(); ++at) {
      const int value = int(half(values, output * form.row() + at) ^ 8U) - 8;
      const int multiplier = int(half(multipliers, output * form.groups() + at / form.group)) + 1;
      to[output * form.row() + at % form.window * form.channels + at / form.window] = std::uint8_t(value * multiplier);
    }
  }
}

// Reads the rest of a constant's record whose weights have 4 bits, and expands them.
std::string read_grouped(Reader& body, const std::uint8_t* blob, std::uint64_t offset, std::uint64_t blob_bytes,
                         Plan* plan, ConstantRecord* constant) {
  Grouped form;
  form.channels = body.take<std::uint32_t>();
  form.window = body.take<std::uint32_t>();
  form.group = body.take<std::uint32_t>();
  const std::uint64_t elements = constant->elements;
  if (body.failed() || form.channels == 0 || form.window == 0 || form.group == 0 || offset > blob_bytes ||
      elements > 2 * (blob_bytes - offset) || form.channels > elements || form.window > elements ||
      elements % form.row() != 0) {
    return "a constant of 4 bits is damaged";
  }
  const std::uint64_t outputs = elements / form.row(), value_bytes = (elements + 1) / 2;
  if (value_bytes + (outputs * form.groups() + 1) / 2 > blob_bytes - offset) return "a constant lies outside the file";
  // Every value is read once, so that a short file cannot ask for much memory.
  std::uint64_t total = elements;
  for (const std::vector<std::uint8_t>& other : plan->expanded) total += other.size() - 128;
  if (total > 2 * blob_bytes) return "its constants overlap";
  plan->expanded.emplace_back();
  std::uint8_t* to = align(&plan->expanded.back(), elements);
  expand(blob + offset, blob + offset + value_bytes, form, outputs, to);
  constant->dtype = Dtype::kS8;
  constant->data = to;
  return "";
}

bool all_below(const std::vector<std::uint32_t>& ids, std::size_t limit) {
  for (const std::uint32_t id : ids) {
    if (id >= limit) return false;
  }
  return true;
}

std::string read_op(Reader& body, const Plan& plan, OpRecord* op) {
  const std::uint32_t kind = body.take<std::uint32_t>();
  const std::vector<char> name = body.list<char>();
  op->inputs = body.list<std::uint32_t>();
  op->outputs = body.list<std::uint32_t>();
  op->constants = body.list<std::uint32_t>();
  op->ints = body.list<std::int64_t>();
  op->floats = body.list<float>();
  if (body.failed()) return "an operator's record is cut off";
  if (kind_name(kind) == nullptr) return "operator kind " + std::to_string(kind) + " is unknown";
  op->kind = static_cast<Kind>(kind);
  op->name.assign(name.begin(), name.end());
  if (!all_below(op->inputs, plan.tensors.size()) || !all_below(op->outputs, plan.tensors.size()) ||
      !all_below(op->constants, plan.constants.size())) {
    return "operator '" + op->name + "' names a tensor or constant that does not exist";
  }
  return "";
}

}  // namespace

std::size_t bytes_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
    case Dtype::kI32:
      return 4;
    case Dtype::kI64:
      return 8;
    default:
      return 1;
  }
}

const char* kind_name(std::uint32_t kind) {
  static const char* const names[] = {
      nullptr,      "quantize",  "dequantize", "table",      "conv_u8", "add_u8",     "mul_u8",   "mean_u8",
      "conv_f32",   "binary_f32", "unary_f32", "mean_f32",   "transpose", "pool",     "gather",   "where",
      "lookup_f32", "matmul_f32", "norm_f32",  "softmax_f32", "slice",  "concat",     "constant",
      "attention_f32", "matmul_int4", "attention_cached", "rows_at", "gather_s8",
      "gather_int4"};
  return kind < sizeof(names) / sizeof(names[0]) ? names[kind] : nullptr;
}

std::string load_plan(const std::uint8_t* data, std::size_t size, Plan* plan) {
  Reader head(data, size);
  if (size < kHeadBytes || std::memcmp(data, kMagic, sizeof(kMagic)) != 0) return "it does not start as a planned model does";
  head.take<std::uint64_t>();
  plan->arena_bytes = head.take<std::uint64_t>();
  const std::uint32_t tensors = head.take<std::uint32_t>(), constants = head.take<std::uint32_t>();
  const std::uint32_t ops = head.take<std::uint32_t>();
  const std::uint32_t inputs = head.take<std::uint32_t>(), outputs = head.take<std::uint32_t>();
  const std::uint64_t body_bytes = head.take<std::uint64_t>(), blob_bytes = head.take<std::uint64_t>();
  if (plan->arena_bytes > kMostBytes) return "its arena is larger than 4 GiB";
  if (body_bytes > size - kHeadBytes) return "it is cut off";
  const std::size_t blob_start = (kHeadBytes + body_bytes + 63) / 64 * 64;
  if (blob_start > size || blob_bytes != size - blob_start) return "it is cut off, or something follows its end";
  // Every record takes 4 bytes at least: counts beyond that would only allocate.
  const std::uint64_t most = body_bytes / 4;
  if (tensors > most || constants > most || ops > most || inputs > most || outputs > most) return "its counts are damaged";

  // Constants are copied once to where vectors may be read from; 64 bytes behind them may be read as well.
  std::uint8_t* aligned = align(&plan->storage, blob_bytes);
  if (blob_bytes > 0) std::memcpy(aligned, data + blob_start, blob_bytes);

  Reader body(data + kHeadBytes, body_bytes);
  plan->tensors.resize(tensors);
  for (TensorRecord& tensor : plan->tensors) {
    const std::string wrong = read_tensor(body, plan->arena_bytes, &tensor);
    if (!wrong.empty()) return wrong;
  }
  plan->constants.resize(constants);
  for (ConstantRecord& constant : plan->constants) {
    const std::uint32_t dtype = body.take<std::uint32_t>();
    constant.elements = body.take<std::uint64_t>();
    const std::uint64_t offset = body.take<std::uint64_t>();
    if (body.failed() || (dtype >= kDtypes && dtype != kGroupedInt4) || offset % 64 != 0) {
      return "a constant's record is damaged";
    }
    if (dtype == kGroupedInt4) {
      const std::string wrong = read_grouped(body, aligned, offset, blob_bytes, plan, &constant);
      if (!wrong.empty()) return wrong;
      continue;
    }
    constant.dtype = static_cast<Dtype>(dtype);
    if (offset > blob_bytes || constant.elements > (blob_bytes - offset) / bytes_of(constant.dtype)) {
      return "a constant lies outside the file";
    }
    constant.data = aligned + offset;
  }
  plan->ops.resize(ops);
  for (OpRecord& op : plan->ops) {
    const std::string wrong = read_op(body, *plan, &op);
    if (!wrong.empty()) return wrong;
  }
  plan->inputs.resize(inputs);
  for (std::uint32_t& id : plan->inputs) id = body.take<std::uint32_t>();
  plan->outputs.resize(outputs);
  for (std::uint32_t& id : plan->outputs) id = body.take<std::uint32_t>();
  if (body.failed() || body.left() != 0) return "its end is damaged";
  if (!all_below(plan->inputs, tensors) || !all_below(plan->outputs, tensors)) return "its inputs or outputs do not exist";
  return "";
}

}  // namespace nas
