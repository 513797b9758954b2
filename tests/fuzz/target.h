#pragma once
#include <span>
#include <string_view>

#include "lib/base/bytes.h"
#include "tests/fuzz/mutate.h"

namespace wtool::fuzz {

// What is fuzzed: a function that takes any bytes. What it must not do is die: a crash, an
// exception that leaves it, finding(), too much memory or time are what the fuzzer looks for.
struct Target {
  std::string_view name;
  void (*run)(Bytes input);
  // Changes `data` in a way that keeps most of it sensible, or leaves it to the bytes' own
  // mutations. Null: always that.
  void (*mutate)(std::string& data, Mutation& how) = nullptr;
};

std::span<const Target* const> all_targets() noexcept;
const Target* find_target(std::string_view name) noexcept;

// A property does not hold: says so and aborts.
[[noreturn]] void finding(std::string_view text);
inline void expect(bool holds, std::string_view text) {
  if (!holds) finding(text);
}

}  // namespace wtool::fuzz
