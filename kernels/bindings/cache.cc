#include "cache.h"

#include <algorithm>
#include <cstring>

namespace nb = nanobind;

namespace {

// Caches at which nobody looks and that are kept for the next text.
constexpr std::size_t kMostIdle = 2;

bool shows(const PastArray& array, const TextCache& cache, std::size_t buffer) {
  const std::int64_t size = cache.rows[buffer].size;
  return array.data() == cache.memory[buffer].data() && array.stride(1) == cache.capacity * size && array.stride(2) == size &&
         array.stride(3) == 1;
}

bool same_rows(const TextCache& cache, const nas::Program& program) {
  const auto& rows = program.cache_rows();
  if (cache.capacity != program.most_tokens() || cache.rows.size() != rows.size()) return false;
  for (std::size_t buffer = 0; buffer < rows.size(); ++buffer) {
    if (rows[buffer].heads != cache.rows[buffer].heads || rows[buffer].size != cache.rows[buffer].size) return false;
  }
  return true;
}

void copy(const PastArray& from, TextCache& cache, std::size_t buffer) {
  const nas::Program::CacheRows& rows = cache.rows[buffer];
  const std::int64_t tokens = std::int64_t(from.shape(2));
  float* to = cache.memory[buffer].data();
  const bool dense = from.stride(3) == 1 && from.stride(2) == rows.size;
  for (std::int64_t head = 0; head < rows.heads; ++head) {
    const float* first = from.data() + head * from.stride(1);
    float* row = to + head * cache.capacity * rows.size;
    if (dense) {
      std::memcpy(row, first, std::size_t(tokens * rows.size) * sizeof(float));
      continue;
    }
    for (std::int64_t token = 0; token < tokens; ++token) {
      for (std::int64_t i = 0; i < rows.size; ++i) {
        row[token * rows.size + i] = first[token * from.stride(2) + i * from.stride(3)];
      }
    }
  }
}

std::shared_ptr<TextCache> fresh_cache(const nas::Program& program) {
  auto cache = std::make_shared<TextCache>();
  cache->rows = program.cache_rows();
  cache->capacity = program.most_tokens();
  for (const nas::Program::CacheRows& rows : cache->rows) {
    cache->memory.emplace_back(std::size_t(rows.heads * rows.size * cache->capacity));
  }
  return cache;
}

}  // namespace

std::unique_ptr<CacheArrays> CachePool::grown(const nas::Program& program, const std::vector<PastArray>& given,
                                              std::int64_t past) {
  const std::int64_t tokens = past + program.new_tokens();
  std::shared_ptr<TextCache> unused;
  std::size_t idle = 0;
  const auto surplus = [&](const auto& cache) { return cache->looking.empty() && ++idle > kMostIdle; };
  kept_.erase(std::remove_if(kept_.begin(), kept_.end(), surplus), kept_.end());
  for (const auto& cache : kept_) {
    if (!same_rows(*cache, program)) continue;
    bool own = past > 0 && cache->farthest() <= past;
    for (std::size_t buffer = 0; own && buffer < given.size(); ++buffer) own = shows(given[buffer], *cache, buffer);
    if (own) return std::make_unique<CacheArrays>(cache, tokens);
    if (cache->looking.empty()) unused = cache;
  }
  if (unused == nullptr) {
    unused = fresh_cache(program);
    kept_.push_back(unused);
  }
  if (past > 0) {
    for (std::size_t buffer = 0; buffer < given.size(); ++buffer) copy(given[buffer], *unused, buffer);
  }
  return std::make_unique<CacheArrays>(unused, tokens);
}

nb::list arrays_of(std::unique_ptr<CacheArrays> shown) {
  TextCache& cache = shown->cache();
  const std::size_t tokens = std::size_t(shown->tokens());
  nb::capsule owner(shown.release(), [](void* held) noexcept { delete static_cast<CacheArrays*>(held); });
  nb::list arrays;
  for (std::size_t buffer = 0; buffer < cache.rows.size(); ++buffer) {
    const nas::Program::CacheRows& rows = cache.rows[buffer];
    const std::size_t shape[] = {1, std::size_t(rows.heads), tokens, std::size_t(rows.size)};
    const std::int64_t strides[] = {rows.heads * cache.capacity * rows.size, cache.capacity * rows.size, rows.size, 1};
    arrays.append(nb::ndarray<nb::numpy, nb::ro, float>(cache.memory[buffer].data(), 4, shape, owner, strides));
  }
  return arrays;
}
