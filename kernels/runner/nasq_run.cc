// nasq-run MODEL.nasq: loads a planned model, runs it, times it and prints JSON. One file, no Python, no C library.
//
// Timing: pinned to one core, in bursts of real-time priority of at most 0.4 s where the user may have it, blocks of 10
// runs, a pause between blocks. The median of a block stands for it; p10, median and quartiles are over blocks.
#include <algorithm>
#include <cstring>
#include <vector>

#include "nas/program.h"
#include "system.h"
#include "text.h"

namespace {

constexpr int kRunsPerBlock = 10;
constexpr double kMostBurstS = 0.4;

struct Options {
  const char* model = nullptr;
  const char* input = nullptr;   // raw bytes of all inputs, one behind the other
  const char* output = nullptr;  // where to write those of all outputs
  int blocks = 20;
  int runs = 1;
  int core = 0;
  bool operators = false;
};

int usage() {
  runner::print_error(
      "usage: nasq-run MODEL.nasq [--blocks N] [--runs N] [--core N] [--input FILE] [--output FILE] [--operators]\n"
      "  --blocks     blocks of 10 runs to time, 0 for none (default 20)\n"
      "  --runs       runs before them, which are not timed (default 1)\n"
      "  --core       processor to be pinned to (default 0)\n"
      "  --input      raw bytes of the inputs (default: made up, the same everywhere)\n"
      "  --output     file for the raw bytes of the outputs\n"
      "  --operators  also print the median time of each operator\n");
  return 2;
}

bool number(const char* text, int* value) {
  int parsed = 0;
  if (*text == '\0') return false;
  for (; *text != '\0'; ++text) {
    if (*text < '0' || *text > '9') return false;
    parsed = parsed * 10 + (*text - '0');
    if (parsed > 1000000) return false;
  }
  *value = parsed;
  return true;
}

bool parse(int count, char** words, Options* options) {
  for (int i = 1; i < count; ++i) {
    const auto is = [&](const char* name) { return std::strcmp(words[i], name) == 0 && i + 1 < count; };
    if (std::strcmp(words[i], "--operators") == 0) {
      options->operators = true;
    } else if (is("--blocks")) {
      if (!number(words[++i], &options->blocks)) return false;
    } else if (is("--runs")) {
      if (!number(words[++i], &options->runs) || options->runs < 1) return false;
    } else if (is("--core")) {
      if (!number(words[++i], &options->core)) return false;
    } else if (is("--input")) {
      options->input = words[++i];
    } else if (is("--output")) {
      options->output = words[++i];
    } else if (words[i][0] != '-' && options->model == nullptr) {
      options->model = words[i];
    } else {
      return false;
    }
  }
  return options->model != nullptr;
}

double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  const double at = share * double(values.size() - 1);
  const std::size_t low = std::size_t(at), high = low + 1 < values.size() ? low + 1 : low;
  return values[low] + (at - double(low)) * (values[high] - values[low]);
}

std::size_t bytes_of(const nas::TensorRecord& tensor) { return tensor.elements * nas::bytes_of(tensor.dtype); }

class Inputs {
 public:
  explicit Inputs(nas::Program* program) : program_(program) {
    std::size_t total = 0;
    for (const std::uint32_t id : program->plan().inputs) total += bytes_of(program->plan().tensors[id]);
    bytes_.resize(total);
  }
  std::size_t size() const { return bytes_.size(); }

  bool read(const char* path) {
    std::vector<std::uint8_t> given;
    if (!runner::read_file(path, &given) || given.size() != bytes_.size()) return false;
    bytes_ = given;
    return true;
  }

  // Floats between -1.7 and 1.7, small integers elsewhere, by xorshift.
  void make_up() {
    std::uint64_t state = 0x9E3779B97F4A7C15ULL;
    std::size_t at = 0;
    for (const std::uint32_t id : program_->plan().inputs) {
      const nas::TensorRecord& tensor = program_->plan().tensors[id];
      for (std::size_t i = 0; i < tensor.elements; ++i) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        const std::uint64_t draw = state >> 40;
        if (tensor.dtype == nas::Dtype::kF32) {
          const float value = (float(draw) / float(1 << 24) - 0.5F) * 3.4F;
          std::memcpy(bytes_.data() + at, &value, 4);
        } else {
          bytes_[at] = std::uint8_t(draw & 1);
        }
        at += nas::bytes_of(tensor.dtype);
      }
    }
  }

  void fill() const {
    std::size_t at = 0;
    for (const std::uint32_t id : program_->plan().inputs) {
      const std::size_t size = bytes_of(program_->plan().tensors[id]);
      std::memcpy(program_->data(id), bytes_.data() + at, size);
      at += size;
    }
  }

 private:
  nas::Program* program_;
  std::vector<std::uint8_t> bytes_;
};

// FNV-1a over all outputs, so that two machines can be compared by eye.
std::uint64_t digest(nas::Program& program) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const std::uint32_t id : program.plan().outputs) {
    const std::uint8_t* data = program.data(id);
    for (std::size_t i = 0; i < bytes_of(program.plan().tensors[id]); ++i) hash = (hash ^ data[i]) * 0x100000001b3ULL;
  }
  return hash;
}

bool write_outputs(nas::Program& program, const char* path) {
  std::vector<std::uint8_t> bytes;
  for (const std::uint32_t id : program.plan().outputs) {
    bytes.insert(bytes.end(), program.data(id), program.data(id) + bytes_of(program.plan().tensors[id]));
  }
  return runner::write_file(path, bytes);
}

// Seconds per run, one median per block.
std::vector<double> time_blocks(nas::Program& program, const Inputs& inputs, int blocks, bool* bursts) {
  std::vector<double> medians;
  *bursts = true;
  for (int block = 0; block < blocks; ++block) {
    *bursts = runner::realtime(true) && *bursts;
    const double started = runner::now_s();
    std::vector<double> runs;
    for (int run = 0; run <= kRunsPerBlock; ++run) {
      inputs.fill();
      const double before = runner::now_s();
      program.run();
      const double after = runner::now_s();
      // The first one warms up, unless a burst has room for one only.
      if (run > 0 || after - started > kMostBurstS) runs.push_back(after - before);
      if (after - started > kMostBurstS) break;
    }
    runner::realtime(false);
    medians.push_back(percentile(runs, 0.5));
    runner::pause_us(5000);
  }
  return medians;
}

std::string operators_json(nas::Program& program, const Inputs& inputs) {
  const std::size_t steps = program.plan().ops.size();
  constexpr int kRuns = 20;
  std::vector<double> seconds(steps * kRuns);
  for (int run = 0; run < kRuns; ++run) {
    inputs.fill();
    program.run_timed(seconds.data() + steps * std::size_t(run));
  }
  std::string json = ", \"operators\": [";
  for (std::size_t step = 0; step < steps; ++step) {
    std::vector<double> times;
    for (int run = 0; run < kRuns; ++run) times.push_back(seconds[steps * std::size_t(run) + step]);
    json += step == 0 ? "{\"name\": " : ", {\"name\": ";
    json += runner::quoted(program.plan().ops[step].name) + ", \"kernel\": \"" + program.step(step).kernel() +
            "\", \"median_us\": " + runner::decimal(percentile(times, 0.5) * 1e6, 3) + "}";
  }
  return json + "]";
}

std::string times_json(const std::vector<double>& blocks, bool pinned, bool bursts) {
  const auto share = [&](const char* name, double of) {
    return std::string(", \"") + name + "\": " + runner::decimal(percentile(blocks, of) * 1e3, 6);
  };
  return ", \"blocks\": " + runner::whole(blocks.size()) + ", \"runs_per_block\": " + runner::whole(kRunsPerBlock) +
         ", \"pinned\": " + (pinned ? "true" : "false") + ", \"realtime\": " + (bursts ? "true" : "false") +
         share("p10_ms", 0.1) + share("q25_ms", 0.25) + share("median_ms", 0.5) + share("q75_ms", 0.75);
}

int fail(const std::string& what) {
  runner::print_error("nasq-run: " + what + "\n");
  return 1;
}

}  // namespace

int main(int count, char** words) {
  Options options;
  if (!parse(count, words, &options)) return usage();
  nas::Level level{};
  const char* refused = nullptr;
  if (!nas::chosen_level(&level, &refused)) return fail(std::string("NAS_FORCE_ISA names a level that is not available: ") + refused);
  std::vector<std::uint8_t> file;
  if (!runner::read_file(options.model, &file)) return fail(std::string("this file cannot be read: ") + options.model);
  nas::Plan plan;
  std::string wrong = nas::load_plan(file.data(), file.size(), &plan);
  std::unique_ptr<nas::Program> program;
  if (wrong.empty()) program = nas::Program::make(std::move(plan), level, &wrong);
  if (program == nullptr) return fail("the planned model was refused: " + wrong);
  Inputs inputs(program.get());
  if (options.input == nullptr) {
    inputs.make_up();
  } else if (!inputs.read(options.input)) {
    return fail(std::string(options.input) + " must hold " + runner::whole(inputs.size()) + " bytes");
  }
  const bool pinned = runner::pin(options.core);
  for (int run = 0; run < options.runs; ++run) {
    inputs.fill();
    program->run();
  }
  if (options.output != nullptr && !write_outputs(*program, options.output)) return fail(std::string("cannot write ") + options.output);
  std::string json = std::string("{\"isa\": \"") + nas::level_name(level) + "\", \"operators_count\": " +
                     runner::whole(program->plan().ops.size()) + ", \"arena_bytes\": " +
                     runner::whole(program->arena_bytes() + program->scratch_bytes()) + ", \"output_digest\": \"" +
                     runner::hexadecimal(digest(*program), 16) + "\"";
  if (options.blocks > 0) {
    bool bursts = false;
    const std::vector<double> blocks = time_blocks(*program, inputs, options.blocks, &bursts);
    json += times_json(blocks, pinned, bursts);
  }
  if (options.operators) json += operators_json(*program, inputs);
  runner::print(json + "}\n");
  return 0;
}
