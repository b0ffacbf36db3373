// nasq-run MODEL.nasq: loads a planned model, runs it, times it and prints JSON. One file, no Python, no exceptions.
//
// Timing: pinned to one core, in bursts of real-time priority of at most 0.4 s where the user may have it, blocks of 10
// runs, a pause between blocks. The median of a block stands for it; p10, median and quartiles are over blocks.
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "nas/program.h"

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
  std::fprintf(stderr,
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
  char* end = nullptr;
  const long parsed = std::strtol(text, &end, 10);
  if (end == text || *end != '\0' || parsed < 0 || parsed > 1000000) return false;
  *value = int(parsed);
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

bool read_file(const char* path, std::vector<std::uint8_t>* bytes) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) return false;
  std::uint8_t chunk[65536];
  std::size_t count = 0;
  while ((count = std::fread(chunk, 1, sizeof(chunk), file)) > 0) bytes->insert(bytes->end(), chunk, chunk + count);
  const bool good = std::ferror(file) == 0;
  std::fclose(file);
  return good;
}

double now_s() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

bool pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (core >= CPU_SETSIZE) return false;
  CPU_SET(core, &set);
  return sched_setaffinity(0, sizeof(set), &set) == 0;
}

bool realtime(bool on) {
  sched_param parameter{};
  parameter.sched_priority = on ? 50 : 0;
  return sched_setscheduler(0, on ? SCHED_FIFO : SCHED_OTHER, &parameter) == 0;
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
    if (!read_file(path, &given) || given.size() != bytes_.size()) return false;
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
  std::FILE* file = std::fopen(path, "wb");
  if (file == nullptr) return false;
  bool good = true;
  for (const std::uint32_t id : program.plan().outputs) {
    const std::size_t size = bytes_of(program.plan().tensors[id]);
    good = std::fwrite(program.data(id), 1, size, file) == size && good;
  }
  return std::fclose(file) == 0 && good;
}

// Seconds per run, one median per block.
std::vector<double> time_blocks(nas::Program& program, const Inputs& inputs, int blocks, bool* bursts) {
  std::vector<double> medians;
  *bursts = true;
  for (int block = 0; block < blocks; ++block) {
    *bursts = realtime(true) && *bursts;
    const double started = now_s();
    std::vector<double> runs;
    for (int run = 0; run <= kRunsPerBlock; ++run) {
      inputs.fill();
      const double before = now_s();
      program.run();
      const double after = now_s();
      // The first one warms up, unless a burst has room for one only.
      if (run > 0 || after - started > kMostBurstS) runs.push_back(after - before);
      if (after - started > kMostBurstS) break;
    }
    realtime(false);
    medians.push_back(percentile(runs, 0.5));
    usleep(5000);
  }
  return medians;
}

// A name of the file as JSON has it.
void print_string(const char* text) {
  std::putchar('"');
  for (; *text != '\0'; ++text) {
    const unsigned char c = static_cast<unsigned char>(*text);
    if (c == '"' || c == '\\') std::printf("\\%c", c);
    else if (c < 32 || c > 126) std::printf("\\u%04x", c);
    else std::putchar(c);
  }
  std::putchar('"');
}

void print_operators(nas::Program& program, const Inputs& inputs) {
  const std::size_t steps = program.plan().ops.size();
  constexpr int kRuns = 20;
  std::vector<double> seconds(steps * kRuns);
  for (int run = 0; run < kRuns; ++run) {
    inputs.fill();
    program.run_timed(seconds.data() + steps * std::size_t(run));
  }
  std::printf(", \"operators\": [");
  for (std::size_t step = 0; step < steps; ++step) {
    std::vector<double> times;
    for (int run = 0; run < kRuns; ++run) times.push_back(seconds[steps * std::size_t(run) + step]);
    std::printf("%s{\"name\": ", step == 0 ? "" : ", ");
    print_string(program.plan().ops[step].name.c_str());
    std::printf(", \"kernel\": \"%s\", \"median_us\": %.3f}", program.step(step).kernel(), percentile(times, 0.5) * 1e6);
  }
  std::printf("]");
}

int fail(const char* what, const char* detail) {
  std::fprintf(stderr, "nasq-run: %s%s\n", what, detail);
  return 1;
}

}  // namespace

int main(int count, char** words) {
  Options options;
  if (!parse(count, words, &options)) return usage();
  nas::Level level{};
  const char* refused = nullptr;
  if (!nas::chosen_level(&level, &refused)) return fail("NAS_FORCE_ISA names a level that is not available: ", refused);
  std::vector<std::uint8_t> file;
  if (!read_file(options.model, &file)) return fail("this file cannot be read: ", options.model);
  nas::Plan plan;
  std::string wrong = nas::load_plan(file.data(), file.size(), &plan);
  std::unique_ptr<nas::Program> program;
  if (wrong.empty()) program = nas::Program::make(std::move(plan), level, &wrong);
  if (program == nullptr) return fail("the planned model was refused: ", wrong.c_str());
  Inputs inputs(program.get());
  if (options.input == nullptr) {
    inputs.make_up();
  } else if (!inputs.read(options.input)) {
    std::fprintf(stderr, "nasq-run: %s must hold %zu bytes\n", options.input, inputs.size());
    return 1;
  }
  const bool pinned = pin(options.core);
  for (int run = 0; run < options.runs; ++run) {
    inputs.fill();
    program->run();
  }
  if (options.output != nullptr && !write_outputs(*program, options.output)) return fail("cannot write ", options.output);
  std::printf("{\"isa\": \"%s\", \"operators_count\": %zu, \"arena_bytes\": %zu, \"output_digest\": \"%016llx\"", nas::level_name(level),
              program->plan().ops.size(), program->arena_bytes() + program->scratch_bytes(),
              static_cast<unsigned long long>(digest(*program)));
  if (options.blocks > 0) {
    bool bursts = false;
    const std::vector<double> blocks = time_blocks(*program, inputs, options.blocks, &bursts);
    std::printf(", \"blocks\": %zu, \"runs_per_block\": %d, \"pinned\": %s, \"realtime\": %s", blocks.size(), kRunsPerBlock,
                pinned ? "true" : "false", bursts ? "true" : "false");
    std::printf(", \"p10_ms\": %.6f, \"q25_ms\": %.6f, \"median_ms\": %.6f, \"q75_ms\": %.6f", percentile(blocks, 0.1) * 1e3,
                percentile(blocks, 0.25) * 1e3, percentile(blocks, 0.5) * 1e3, percentile(blocks, 0.75) * 1e3);
  }
  if (options.operators) print_operators(*program, inputs);
  std::printf("}\n");
  return 0;
}
