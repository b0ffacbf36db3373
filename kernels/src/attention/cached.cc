// Attention that keeps keys and values for the tokens that follow, and the operator that knows a token's position.
#include <cstring>

#include "../execute/step.h"
#include "nas/attention.h"

namespace nas {
namespace {

// Of keys, which is what a cache of 4 GiB has; of scores, far beyond what can be computed in a day.
constexpr std::int64_t kMostFloats = std::int64_t{1} << 30;
constexpr double kMostScores = 68719476736.0;  // 2^36

}  // namespace

// ints: heads, kv_heads, buffer of keys, buffer of values, whether scores stay in float, zero point, most tokens.
StepPtr make_attention_cached(const OpView& view) {
  if (!view.counts(1, 1, 0, 7, 2)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const auto& ints = view.op.ints;
  const std::int64_t heads = ints[0], kv_heads = ints[1], zero = ints[5], most = ints[6];
  if (!is(in, Dtype::kF32) || in.rank != 4 || in.dims[0] != 1) return nullptr;
  if (heads < 1 || kv_heads < 1 || heads > 65535 || kv_heads > 65535 || heads % kv_heads != 0) return nullptr;
  if (std::int64_t(in.dims[2]) != heads + 2 * kv_heads || zero < 0 || zero > 255) return nullptr;
  const std::int64_t tokens = in.dims[1], size = in.dims[3];
  if (out.elements != std::uint64_t(tokens * heads * size) || most < tokens) return nullptr;
  // The cache of a program is as long as its shortest attention says, which need not be this one.
  if (most > kMostFloats / (kv_heads * size) || double(tokens) * double(most) * double(heads) > kMostScores) return nullptr;
  const float out_scale = view.op.floats[1];
  const bool bytes = is(out, Dtype::kU8);
  if (!(bytes ? out_scale > 0.0F : is(out, Dtype::kF32))) return nullptr;
  const std::int64_t row = (heads + 2 * kv_heads) * size;
  const std::size_t key = std::size_t(ints[2]), value = std::size_t(ints[3]);
  AttentionArgs args;
  args.queries = tokens, args.keys = most;
  args.heads = heads, args.kv_heads = kv_heads, args.head_dim = size;
  args.q.token = row, args.q.head = args.k.token = args.v.token = size;
  args.scale = view.op.floats[0];
  args.causal = true;
  args.exact = ints[4] != 0;
  args.y.stride = heads * size;
  args.y.type = bytes ? Type::u8 : Type::f32;
  args.y.quantization = {bytes ? out_scale : 1.0F, std::int32_t(zero), false};
  const Level level = view.level;
  const Cache* cache = view.cache;
  const bool floats = args.exact || tokens < kFewQueries;
  // Parts are whole heads of keys and values, since a part writes those that it reads.
  const double macs = 2.0 * double(tokens * most) * double(heads * size);
  const int wanted = view.parts(macs * (floats ? kNsPerFloatMac : kNsPerAttentionMac));
  return shared_step(
      std::string(floats ? "attention_cached_f32_" : "attention_cached_s16_") + level_name(attention_kernels(level).level),
      kv_heads >= wanted ? wanted : 1,
      [=](std::uint8_t* arena, std::uint8_t* scratch, Part part) {
        const Span mine = share(kv_heads, part);
        const float* joint = at<float>(arena, in);
        float *keys = cache->buffers[key], *values = cache->buffers[value];
        for (std::int64_t head = mine.first; head < mine.end; ++head) {
          for (std::int64_t token = 0; token < tokens; ++token) {
            const float* from = joint + token * row + (heads + head) * size;
            const std::int64_t to = (head * cache->capacity + cache->past + token) * size;
            std::memcpy(keys + to, from, std::size_t(size) * sizeof(float));
            std::memcpy(values + to, from + kv_heads * size, std::size_t(size) * sizeof(float));
          }
        }
        AttentionArgs now = args;
        now.keys = cache->past + tokens;
        const std::int64_t units = attention_units(now) / kv_heads;
        now.units = {mine.first * units, mine.end * units};
        now.q.data = joint;
        now.k.data = keys;
        now.v.data = values;
        now.k.head = now.v.head = cache->capacity * size;
        now.y.data = arena + out.offset;
        now.scratch = scratch;
        attention(now, level);
      },
      attention_scratch_bytes(args));
}

// Rows of a table from the number of tokens in the cache on; ints: how many rows it has.
StepPtr make_rows_at(const OpView& view) {
  if (!view.counts(0, 1, 1, 1, 0)) return nullptr;
  const TensorRecord out = view.output();
  const ConstantRecord table = view.constant(0);
  const std::int64_t rows = view.op.ints[0];
  if (!is(out, Dtype::kF32) || table.dtype != Dtype::kF32 || out.rank != 2 || rows < std::int64_t(out.dims[0])) return nullptr;
  const std::uint64_t width = out.dims[1];
  if (table.elements % width != 0 || table.elements / width != std::uint64_t(rows)) return nullptr;
  const Cache* cache = view.cache;
  const float* entries = values<float>(table);
  const std::size_t bytes = out.elements * sizeof(float);
  return step_of("rows_at_portable", [=](std::uint8_t* arena, std::uint8_t*) {
    std::memcpy(arena + out.offset, entries + std::uint64_t(cache->past) * width, bytes);
  });
}

}  // namespace nas
