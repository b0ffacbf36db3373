// nasq-run MODEL.nasq: loads a planned model, runs it, times it and prints JSON. One file, no Python, no C library.
//
// Timing: pinned to one core, in bursts of real-time priority of at most 0.4 s where the user may have it, blocks of 10
// runs, a pause between blocks. The median of a block stands for it; p10, median and quartiles are over blocks. Several
// models are timed in turns, block by block, and all runs are printed: whoever compares them has the same minute for all.
#include <algorithm>
#include <cstring>
#include <vector>

#include "nas/program.h"
#include "system.h"
#include "text.h"

namespace {

constexpr int kRunsPerBlock = 10;
constexpr double kMostBurstS = 0.4;
constexpr int kFewestBlocks = 5;

struct Options {
  std::vector<const char*> models;
  const char* input = nullptr;   // raw bytes of all inputs, one behind the other
  const char* output = nullptr;  // where to write those of all outputs
  int blocks = 20;
  int runs = 1;
  int core = 0;
  int most_ms = 0;
  bool operators = false;
  bool realtime = true;
};

int usage() {
  runner::print_error(
      "usage: nasq-run MODEL.nasq [MORE.nasq ...] [--blocks N] [--runs N] [--core N] [--most-ms N] [--no-realtime]\n"
      "                [--input FILE] [--output FILE] [--operators]\n"
      "  MORE.nasq    timed in turns with the first one\n"
      "  --blocks     blocks of 10 runs to time, 0 for none (default 20)\n"
      "  --runs       runs before them, which are not timed (default 1)\n"
      "  --core       processor to be pinned to (default 0)\n"
      "  --most-ms    of several models, ends after so many milliseconds and 5 blocks (default 0: after all blocks)\n"
      "  --no-realtime  never asks for real-time priority\n"
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
    } else if (std::strcmp(words[i], "--no-realtime") == 0) {
      options->realtime = false;
    } else if (is("--most-ms")) {
      if (!number(words[++i], &options->most_ms)) return false;
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
    } else if (words[i][0] != '-') {
      options->models.push_back(words[i]);
    } else {
      return false;
    }
  }
  return !options->models.empty();
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

// Seconds of each run of a block.
std::vector<double> time_block(nas::Program& program, const Inputs& inputs, bool wanted, bool* bursts) {
  *bursts = wanted && runner::realtime(true) && *bursts;
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
  if (wanted) runner::realtime(false);
  runner::pause_us(5000);
  return runs;
}

// Seconds per run, one median per block.
std::vector<double> time_blocks(nas::Program& program, const Inputs& inputs, const Options& options, bool* bursts) {
  std::vector<double> medians;
  for (int block = 0; block < options.blocks; ++block) {
    medians.push_back(percentile(time_block(program, inputs, options.realtime, bursts), 0.5));
  }
  return medians;
}

struct Model {
  std::unique_ptr<nas::Program> program;
  std::unique_ptr<Inputs> inputs;
};

// By model, block and run. The order turns by one from round to round, so that no model always follows the same neighbour.
std::vector<std::vector<std::vector<double>>> time_turns(const std::vector<Model>& models, const Options& options, bool* bursts) {
  std::vector<std::vector<std::vector<double>>> seconds(models.size());
  const double started = runner::now_s();
  for (int block = 0; block < options.blocks; ++block) {
    if (options.most_ms > 0 && block >= kFewestBlocks && runner::now_s() - started > 1e-3 * options.most_ms) break;
    for (std::size_t position = 0; position < models.size(); ++position) {
      const std::size_t index = (position + std::size_t(block)) % models.size();
      seconds[index].push_back(time_block(*models[index].program, *models[index].inputs, options.realtime, bursts));
    }
  }
  return seconds;
}

// KiB of this process by a name such as VmHWM, the most that was resident; -1 where the system does not say.
long status_kib(const char* name) {
  std::vector<std::uint8_t> text;
  if (!runner::read_file("/proc/self/status", &text)) return -1;
  const std::vector<std::uint8_t> wanted(name, name + std::strlen(name));
  auto at = std::search(text.begin(), text.end(), wanted.begin(), wanted.end());
  while (at != text.end() && (*at < '0' || *at > '9')) ++at;
  if (at == text.end()) return -1;
  long kib = 0;
  for (; at != text.end() && *at >= '0' && *at <= '9'; ++at) kib = kib * 10 + (*at - '0');
  return kib;
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

std::string turns_json(const std::vector<std::vector<std::vector<double>>>& seconds, double started) {
  std::string json = ", \"started_s\": " + runner::decimal(started, 6) +
                     ", \"elapsed_s\": " + runner::decimal(runner::now_s() - started, 6) + ", \"turns_us\": ";
  for (std::size_t model = 0; model < seconds.size(); ++model) {
    json += model == 0 ? "[[" : ", [";
    for (std::size_t block = 0; block < seconds[model].size(); ++block) {
      json += block == 0 ? "[" : ", [";
      const std::vector<double>& runs = seconds[model][block];
      for (std::size_t run = 0; run < runs.size(); ++run) json += (run == 0 ? "" : ", ") + runner::decimal(runs[run] * 1e6, 3);
      json += "]";
    }
    json += "]";
  }
  return json + "]";
}

std::string times_json(const std::vector<double>& blocks) {
  const auto share = [&](const char* name, double of) {
    return std::string(", \"") + name + "\": " + runner::decimal(percentile(blocks, of) * 1e3, 6);
  };
  return ", \"blocks\": " + runner::whole(blocks.size()) + ", \"runs_per_block\": " + runner::whole(kRunsPerBlock) +
         share("p10_ms", 0.1) + share("q25_ms", 0.25) + share("median_ms", 0.5) + share("q75_ms", 0.75);
}

std::string truth(bool value) { return value ? "true" : "false"; }

int fail(const std::string& what) {
  runner::print_error("nasq-run: " + what + "\n");
  return 1;
}

// Loads a model, makes up its inputs or reads them, and runs it as often as was asked for; 0, or the exit status.
int make_ready(const char* path, nas::Level level, const Options& options, Model* model) {
  std::vector<std::uint8_t> file;
  if (!runner::read_file(path, &file)) return fail(std::string("this file cannot be read: ") + path);
  nas::Plan plan;
  std::string wrong = nas::load_plan(file.data(), file.size(), &plan);
  if (wrong.empty()) model->program = nas::Program::make(std::move(plan), level, &wrong);
  if (model->program == nullptr) return fail("the planned model was refused: " + wrong);
  model->inputs = std::make_unique<Inputs>(model->program.get());
  if (options.input == nullptr) {
    model->inputs->make_up();
  } else if (!model->inputs->read(options.input)) {
    return fail(std::string(options.input) + " must hold " + runner::whole(model->inputs->size()) + " bytes");
  }
  for (int run = 0; run < options.runs; ++run) {
    model->inputs->fill();
    model->program->run();
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  Options options;
  if (!parse(count, words, &options)) return usage();
  nas::Level level{};
  const char* refused = nullptr;
  if (!nas::chosen_level(&level, &refused)) return fail(std::string("NAS_FORCE_ISA names a level that is not available: ") + refused);
  const bool pinned = runner::pin(options.core);
  std::vector<Model> models(options.models.size());
  const long before_kib = status_kib("VmRSS:");
  long peak_kib = -1;
  for (std::size_t index = 0; index < models.size(); ++index) {
    if (const int status = make_ready(options.models[index], level, options, &models[index])) return status;
    if (index == 0) peak_kib = status_kib("VmHWM:");
  }
  nas::Program& program = *models[0].program;
  if (options.output != nullptr && !write_outputs(program, options.output)) return fail(std::string("cannot write ") + options.output);
  std::string json = std::string("{\"isa\": \"") + nas::level_name(level) + "\", \"operators_count\": " +
                     runner::whole(program.plan().ops.size()) + ", \"arena_bytes\": " +
                     runner::whole(program.arena_bytes() + program.scratch_bytes()) + ", \"output_digest\": \"" +
                     runner::hexadecimal(digest(program), 16) + "\"";
  if (before_kib >= 0 && peak_kib > before_kib) json += ", \"memory_kib\": " + runner::whole(std::uint64_t(peak_kib - before_kib));
  bool bursts = options.realtime;
  if (options.blocks > 0 && models.size() > 1) {
    const double started = runner::now_s();
    json += turns_json(time_turns(models, options, &bursts), started);
  } else if (options.blocks > 0) {
    json += times_json(time_blocks(program, *models[0].inputs, options, &bursts));
  }
  if (options.blocks > 0) json += ", \"pinned\": " + truth(pinned) + ", \"realtime\": " + truth(bursts);
  if (options.operators) json += operators_json(program, *models[0].inputs);
  runner::print(json + "}\n");
  return 0;
}
