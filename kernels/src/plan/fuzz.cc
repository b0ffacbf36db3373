// Damages planned models for a number of seconds, loads and, where they still load, runs them: fuzz SECONDS SEED MODEL.nasq...
//
// Built with AddressSanitizer and UBSan (make kernels-fuzz), so that a read or write out of bounds ends it. A round is decided
// by SEED, its number and the model alone; FIRST in the environment is the number to begin with.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../../tests/check.h"
#include "nas/program.h"

namespace {

bool read_file(const char* path, std::vector<std::uint8_t>* bytes) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) return false;
  int c = 0;
  while ((c = std::fgetc(file)) != EOF) bytes->push_back(std::uint8_t(c));
  std::fclose(file);
  return true;
}

// One of: a flipped bit, a byte, a 32-bit word set to something telling, a piece moved, an end cut off. Most go to the
// records, few to the weights behind them.
void damage(std::vector<std::uint8_t>& bytes, std::size_t records, nas_test::Random& random) {
  const auto place = [&](std::size_t width) {
    const std::size_t limit = random.between(0, 9) == 0 ? bytes.size() : std::min(records, bytes.size());
    return limit <= width ? 0 : std::size_t(random.between(0, std::int64_t(limit - width)));
  };
  if (bytes.size() < 16) return;
  switch (random.between(0, 5)) {
    case 0:
      bytes[place(1)] ^= std::uint8_t(1U << random.between(0, 7));
      return;
    case 1:
      bytes[place(1)] = std::uint8_t(random.between(0, 255));
      return;
    case 2:
    case 3: {
      static const std::uint32_t telling[] = {0, 1, 2, 3, 15, 16, 17, 255, 256, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
      const std::uint32_t word = telling[random.between(0, 13)];
      std::memcpy(bytes.data() + place(4) / 4 * 4, &word, 4);
      return;
    }
    case 4: {
      const std::size_t from = place(8), to = place(8);
      std::uint8_t piece[8];
      std::memcpy(piece, bytes.data() + from, 8);
      std::memcpy(bytes.data() + to, piece, 8);
      return;
    }
    default:
      if (random.between(0, 7) == 0) bytes.resize(std::size_t(random.between(0, std::int64_t(bytes.size()))));
  }
}

struct Outcomes {
  long refused = 0, unfit = 0, large = 0, ran = 0;
};

void try_one(const std::vector<std::uint8_t>& whole, nas_test::Random& random, Outcomes* outcomes) {
  std::uint64_t body = 0;
  std::memcpy(&body, whole.data() + 36, 8);
  // An exact copy on the heap, so that AddressSanitizer sees one byte too far.
  std::vector<std::uint8_t> bytes(whole);
  for (std::int64_t times = random.between(1, 3); times > 0; --times) damage(bytes, std::size_t(52 + body), random);
  bytes.shrink_to_fit();
  nas::Plan plan;
  if (!nas::load_plan(bytes.data(), bytes.size(), &plan).empty()) {
    ++outcomes->refused;
    return;
  }
  // Not what the fuzzer is about: it would only be slow.
  if (plan.arena_bytes > (std::uint64_t{1} << 26)) {
    ++outcomes->large;
    return;
  }
  const auto last = static_cast<std::int64_t>(nas::Level::neoni8mm);
  const nas::Level level = static_cast<nas::Level>(random.between(0, last));
  std::string wrong;
  const nas::Level taken = nas::level_available(level) ? level : nas::best_level();
  // In parts as for several threads, which this program does without.
  const nas::Threads threads{static_cast<int>(random.between(1, 3)), 0.0};
  const auto program = nas::Program::make(std::move(plan), taken, &wrong, threads);
  if (program == nullptr) {
    ++outcomes->unfit;
    return;
  }
  if (!program->plan().tensors.empty()) {
    std::uint8_t* const arena = program->data(0) - program->plan().tensors[0].offset;
    std::memset(arena, int(random.between(0, 255)), program->plan().arena_bytes);
  }
  program->run();
  ++outcomes->ran;
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) return 2;
  std::vector<std::vector<std::uint8_t>> models(std::size_t(count) - 3);
  for (std::size_t i = 0; i < models.size(); ++i) {
    if (!read_file(words[i + 3], &models[i]) || models[i].size() < 64) return 2;
  }
  const std::uint64_t seed = std::strtoull(words[2], nullptr, 10);
  const char* const first = std::getenv("FIRST");
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::atof(words[1]));
  std::vector<Outcomes> outcomes(models.size());
  long round = first == nullptr ? 0 : std::atol(first);
  for (; std::chrono::steady_clock::now() < until; ++round) {
    const std::size_t model = std::size_t(round) % models.size();
    // Told before, for the case that nothing can be told behind it.
    if (first != nullptr) std::fprintf(stderr, "round %ld, %s\n", round, words[model + 3]);
    nas_test::Random random(seed * 1000003 + std::uint64_t(round));
    try_one(models[model], random, &outcomes[model]);
  }
  for (std::size_t i = 0; i < models.size(); ++i) {
    const Outcomes& o = outcomes[i];
    std::printf("%s: %ld refused when read, %ld with operators that do not fit, %ld too large, %ld ran\n", words[i + 3], o.refused,
                o.unfit, o.large, o.ran);
  }
  std::printf("%ld rounds\n", round);
  return 0;
}
