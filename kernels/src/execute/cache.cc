// What a program with a cache of keys and values asks of it, and which it uses.
#include <algorithm>

#include "nas/program.h"

namespace nas {
namespace {

constexpr std::int64_t kMostBuffers = 1024;
constexpr std::int64_t kMostCacheFloats = std::int64_t{1} << 30;

// The parameters of an operator that reads the cache: see make_attention_cached and make_rows_at, which check the rest.
constexpr std::size_t kAttentionInts = 7, kRowsInts = 1;

}  // namespace

// Returns what is wrong, nothing where the operators agree with one another.
std::string Program::learn_cache() {
  std::int64_t most = kMostCacheFloats, tokens = 0;
  const auto agree = [&](std::int64_t count) {
    const bool same = count > 0 && (tokens == 0 || tokens == count);
    tokens = count;
    return same;
  };
  for (const OpRecord& op : plan_.ops) {
    if (op.kind == Kind::kRowsAt && op.ints.size() == kRowsInts && op.outputs.size() == 1) {
      const TensorRecord& out = plan_.tensors[op.outputs[0]];
      if (out.rank != 2 || !agree(out.dims[0])) return "its operators do not agree on how many tokens are new";
      most = std::min(most, op.ints[0]);
    }
    if (op.kind != Kind::kAttentionCached) continue;
    if (op.ints.size() != kAttentionInts || op.inputs.size() != 1) return "an attention with a cache lacks parameters";
    const TensorRecord& joint = plan_.tensors[op.inputs[0]];
    if (joint.rank != 4 || !agree(joint.dims[1])) return "its operators do not agree on how many tokens are new";
    for (int index = 2; index < 4; ++index) {
      const std::int64_t buffer = op.ints[index];
      if (buffer < 0 || buffer >= kMostBuffers) return "an attention names a cache that cannot be";
      if (cache_rows_.size() <= std::size_t(buffer)) cache_rows_.resize(std::size_t(buffer) + 1);
      CacheRows& rows = cache_rows_[std::size_t(buffer)];
      if (rows.heads != 0 || op.ints[1] < 1 || op.ints[1] > 65535) return "two attentions write the same cache";
      rows = {op.ints[1], std::int64_t(joint.dims[3])};
    }
    most = std::min(most, op.ints[6]);
  }
  if (tokens == 0) return "";
  std::int64_t floats = 0;
  if (most < tokens) return "its cache is shorter than its tokens";
  for (const CacheRows& rows : cache_rows_) {
    if (rows.heads == 0) return "a cache is written by no attention";
    if (rows.heads * rows.size > (kMostCacheFloats - floats) / most) return "its cache is larger than 4 GiB";
    floats += rows.heads * rows.size * most;
  }
  new_tokens_ = tokens;
  most_tokens_ = most;
  cache_->capacity = most;
  cache_->past = most - tokens;
  return "";
}

bool Program::use(const std::vector<float*>& buffers, std::int64_t capacity, std::int64_t past) {
  if (new_tokens_ == 0 || buffers.size() != cache_rows_.size() || past < 0 || past > most_tokens_ - new_tokens_) return false;
  if (capacity < past + new_tokens_) return false;
  cache_->buffers = buffers;
  cache_->capacity = capacity;
  cache_->past = past;
  return true;
}

void Program::use_own_cache() {
  if (cache_rows_.empty()) return;
  std::size_t floats = 0;
  for (const CacheRows& rows : cache_rows_) floats += std::size_t(rows.heads * rows.size * most_tokens_);
  own_cache_.assign(floats, 0.0F);
  std::vector<float*> buffers;
  float* next = own_cache_.data();
  for (const CacheRows& rows : cache_rows_) {
    buffers.push_back(next);
    next += rows.heads * rows.size * most_tokens_;
  }
  use(buffers, most_tokens_, most_tokens_ - new_tokens_);
}

}  // namespace nas
