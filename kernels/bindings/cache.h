// Keys and values of texts, handed out as arrays that never change and yet grow in place.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "nas/program.h"

using PastArray = nanobind::ndarray<nanobind::ro, float, nanobind::ndim<4>, nanobind::device::cpu>;

// One text's keys and values. An array that was handed out shows the first tokens; whoever looks at fewer than all of them
// does not see those behind, so these may be written as long as nobody looks further.
struct TextCache {
  std::vector<nas::Program::CacheRows> rows;
  std::int64_t capacity = 0;
  std::vector<std::vector<float>> memory;
  std::map<std::int64_t, int> looking;  // tokens to how many sets of arrays show so many

  std::int64_t farthest() const { return looking.empty() ? -1 : looking.rbegin()->first; }
};

// Arrays of one run: as long as one of them lives, the tokens that they show are not written.
class CacheArrays {
 public:
  CacheArrays(std::shared_ptr<TextCache> cache, std::int64_t tokens) : cache_(std::move(cache)), tokens_(tokens) {
    ++cache_->looking[tokens_];
  }
  CacheArrays(const CacheArrays&) = delete;
  CacheArrays& operator=(const CacheArrays&) = delete;
  ~CacheArrays() {
    const auto found = cache_->looking.find(tokens_);
    if (--found->second == 0) cache_->looking.erase(found);
  }
  TextCache& cache() const { return *cache_; }
  std::int64_t tokens() const { return tokens_; }

 private:
  std::shared_ptr<TextCache> cache_;
  std::int64_t tokens_;
};

// The caches of a session, used again when nobody looks at them any more. Needs the interpreter's lock.
class CachePool {
 public:
  // Returns arrays for `past + fresh` tokens of a cache in which the first `past` are those of `given`, one array per buffer of
  // the program: the cache that `given` shows where that can grow, else another with a copy.
  std::unique_ptr<CacheArrays> grown(const nas::Program& program, const std::vector<PastArray>& given, std::int64_t past);

 private:
  std::vector<std::shared_ptr<TextCache>> kept_;
};

// Read-only arrays of shape (1, heads, tokens, size), which keep the cache alive.
nanobind::list arrays_of(std::unique_ptr<CacheArrays> shown);
