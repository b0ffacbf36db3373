#include "nas/program.h"

#include <algorithm>
#include <chrono>

#include "step.h"
#include "team.h"

namespace nas {
namespace {

constexpr std::size_t kGuard = 256;  // bytes behind arena and scratch that kernels may read
constexpr std::size_t kMostScratch = std::size_t{1} << 32;  // as much as an arena may have

StepPtr make_step(const OpView& view) {
  switch (view.op.kind) {
    case Kind::kQuantize:
      return make_quantize(view);
    case Kind::kDequantize:
      return make_dequantize(view);
    case Kind::kTable:
      return make_table(view);
    case Kind::kConvU8:
      return make_conv_u8(view);
    case Kind::kAddU8:
    case Kind::kMulU8:
      return make_binary_u8(view);
    case Kind::kMeanU8:
      return make_mean_u8(view);
    case Kind::kConvF32:
      return make_conv_f32(view);
    case Kind::kBinaryF32:
      return make_binary_f32(view);
    case Kind::kUnaryF32:
      return make_unary_f32(view);
    case Kind::kMeanF32:
      return make_mean_f32(view);
    case Kind::kTranspose:
      return make_transpose(view);
    case Kind::kPool:
      return make_pool(view);
    case Kind::kGather:
      return make_gather(view);
    case Kind::kWhere:
      return make_where(view);
    case Kind::kLookupF32:
      return make_lookup(view);
    case Kind::kMatmulF32:
      return make_matmul_f32(view);
    case Kind::kNormF32:
      return make_norm_f32(view);
    case Kind::kSoftmaxF32:
      return make_softmax_f32(view);
    case Kind::kSlice:
      return make_slice(view);
    case Kind::kConcat:
      return make_concat(view);
    case Kind::kConstant:
      return make_constant(view);
    case Kind::kAttentionF32:
      return make_attention_f32(view);
    case Kind::kMatmulInt4:
      return make_matmul_int4(view);
    case Kind::kAttentionCached:
      return make_attention_cached(view);
    case Kind::kRowsAt:
      return make_rows_at(view);
    case Kind::kGatherS8:
      return make_gather_s8(view);
    case Kind::kGatherInt4:
      return make_gather_int4(view);
  }
  return nullptr;
}

}  // namespace

Workspace::Workspace(std::size_t arena_bytes, std::size_t scratch_bytes) : memory_(arena_bytes + scratch_bytes + 64) {
  arena_ = memory_.data() + (64 - reinterpret_cast<std::uintptr_t>(memory_.data()) % 64) % 64;
  scratch_ = arena_ + arena_bytes;
}

Team::~Team() = default;

// What stands here is for programs that are linked without threads.cc, which has the others.
__attribute__((weak)) std::unique_ptr<Team> make_team(const TeamWork&) { return nullptr; }
__attribute__((weak)) int most_threads() { return 1; }

Program::Program() = default;
Program::~Program() = default;

std::unique_ptr<Program> Program::make(Plan plan, Level level, std::string* error, Threads threads) {
  std::unique_ptr<Program> program(new Program());
  program->plan_ = std::move(plan);
  const Plan& kept = program->plan_;
  threads.count = std::max(1, std::min(threads.count, kMostParts));
  *error = program->learn_cache();
  if (!error->empty()) return nullptr;
  *error = program->make_steps(level, threads);
  if (!error->empty()) return nullptr;
  std::size_t scratch = 0;
  bool shared = false;
  for (const StepPtr& step : program->steps_) {
    scratch = std::max(scratch, step->scratch_bytes());
    shared = shared || step->parts() > 1;
  }
  if (scratch > kMostScratch) {
    *error = "one of its operators needs " + std::to_string(scratch) + " bytes to work in, more than 4 GiB";
    return nullptr;
  }
  const auto rounded = [](std::size_t bytes) { return (bytes + kGuard + 63) / 64 * 64; };
  program->arena_size_ = rounded(kept.arena_bytes);
  program->scratch_size_ = rounded(scratch);
  program->threads_ = shared ? threads.count : 1;
  program->own_ = Workspace(program->arena_size_, program->scratch_bytes());
  if (shared) {
    Workspace& own = program->own_;
    program->team_ = make_team({&program->steps_, own.arena_, own.scratch_, program->scratch_size_, threads.count,
                                program->shared_ns_});
  }
  return program;
}

// Returns what is wrong with an operator, nothing where all became steps.
std::string Program::make_steps(Level level, Threads threads) {
  double shared_ns = 0;
  steps_.clear();
  for (const OpRecord& op : plan_.ops) {
    StepPtr step = make_step({plan_, op, level, cache_.get(), threads, &shared_ns});
    if (step == nullptr) {
      return "operator '" + op.name + "' (" + kind_name(static_cast<std::uint32_t>(op.kind)) +
             ") has shapes, types or parameters that do not fit together";
    }
    steps_.push_back(std::move(step));
  }
  shared_ns_ = shared_ns;
  const bool worth = threads.split_ns <= 0 || shared_ns >= kLeastSharedNs;
  return shared_ns == 0 || worth ? "" : make_steps(level, {});
}

void Program::run() {
  if (cache_->buffers.empty()) use_own_cache();
  team_ != nullptr ? team_->run(nullptr) : run(own_);
}

void Program::run(Workspace& workspace) const {
  for (const auto& step : steps_) run_alone(*step, workspace.arena_, workspace.scratch_);
}

void Program::run_timed(double* seconds) {
  using Clock = std::chrono::steady_clock;
  if (cache_->buffers.empty()) use_own_cache();
  if (team_ != nullptr) return team_->run(seconds);
  Clock::time_point before = Clock::now();
  for (const auto& step : steps_) {
    run_alone(*step, own_.arena_, own_.scratch_);
    const Clock::time_point after = Clock::now();
    *seconds++ = std::chrono::duration<double>(after - before).count();
    before = after;
  }
}

}  // namespace nas
