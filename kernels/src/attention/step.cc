// Attention as an operator of a planned program: queries, keys and values lie joint in one tensor, as a projection leaves
// them.
#include "../execute/step.h"
#include "nas/attention.h"

namespace nas {
namespace {

constexpr double kMostScores = 68719476736.0;  // 2^36, far beyond what can be computed in a day

}  // namespace

// ints: heads, kv_heads, whether it is causal, zero point, whether scores stay in float.
StepPtr make_attention_f32(const OpView& view) {
  if (!view.counts(1, 1, 0, 5, 2)) return nullptr;
  const TensorRecord in = view.input(0), out = view.output();
  const std::int64_t heads = view.op.ints[0], kv_heads = view.op.ints[1], zero = view.op.ints[3];
  if (!is(in, Dtype::kF32) || in.rank != 4 || in.dims[0] != 1) return nullptr;
  if (heads < 1 || kv_heads < 1 || heads > 65535 || kv_heads > 65535 || heads % kv_heads != 0) return nullptr;
  if (std::int64_t(in.dims[2]) != heads + 2 * kv_heads || zero < 0 || zero > 255) return nullptr;
  const std::int64_t tokens = in.dims[1], size = in.dims[3];
  if (out.elements != std::uint64_t(tokens * heads * size)) return nullptr;
  if (double(tokens) * double(tokens) * double(heads) > kMostScores) return nullptr;
  const float out_scale = view.op.floats[1];
  const bool bytes = is(out, Dtype::kU8);
  if (!(bytes ? out_scale > 0.0F : is(out, Dtype::kF32))) return nullptr;
  AttentionArgs args;
  args.queries = args.keys = tokens;
  args.heads = heads, args.kv_heads = kv_heads, args.head_dim = size;
  args.q.token = args.k.token = args.v.token = (heads + 2 * kv_heads) * size;
  args.q.head = args.k.head = args.v.head = size;
  args.scale = view.op.floats[0];
  args.causal = view.op.ints[2] != 0;
  args.exact = view.op.ints[4] != 0;
  args.y.stride = heads * size;
  args.y.type = bytes ? Type::u8 : Type::f32;
  args.y.quantization = {bytes ? out_scale : 1.0F, std::int32_t(zero), false};
  const Level level = view.level;
  const bool floats = args.exact || tokens < kFewQueries;
  const double macs = 2.0 * double(tokens * tokens) * double(heads * size);
  return shared_step(
      std::string(floats ? "attention_f32_" : "attention_s16_") + level_name(attention_kernels(level).level),
      view.parts(macs * (floats ? kNsPerFloatAttentionMac : kNsPerAttentionMac)),
      [=](std::uint8_t* arena, std::uint8_t* scratch, Part part) {
        AttentionArgs now = args;
        now.units = share(attention_units(args), part);
        const float* joint = at<float>(arena, in);
        now.q.data = joint;
        now.k.data = joint + heads * size;
        now.v.data = joint + (heads + kv_heads) * size;
        now.y.data = arena + out.offset;
        now.scratch = scratch;
        attention(now, level);
      },
      attention_scratch_bytes(args));
}

}  // namespace nas
