#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/target.h"

namespace wtool::fuzz {

extern const Target kBundle, kCard, kCli, kCompressed, kGate, kGguf, kHf, kImatrix, kIndex, kJson,
    kLock, kManifest, kMetadata, kNpy, kRecipe, kRules, kSafetensors, kSchemes, kSelector, kSlice,
    kTokenizer;

std::span<const Target* const> all_targets() noexcept {
#ifdef WTOOL_READERS_ONLY  // without those that need the command line's code
  static constexpr std::array<const Target*, 13> kTargets{
      &kSafetensors, &kGguf,   &kNpy,        &kImatrix, &kIndex, &kSchemes,  &kSelector,
      &kGate,        &kBundle, &kCompressed, &kHf,      &kCard,  &kTokenizer};
#else
  static constexpr std::array<const Target*, 21> kTargets{
      &kSafetensors, &kGguf,     &kNpy,        &kImatrix, &kIndex, &kSchemes,   &kJson,
      &kMetadata,    &kSelector, &kGate,       &kSlice,   &kLock,  &kRules,     &kCli,
      &kBundle,      &kManifest, &kCompressed, &kHf,      &kCard,  &kTokenizer, &kRecipe};
#endif
  return kTargets;
}

const Target* find_target(std::string_view name) noexcept {
  const auto targets = all_targets();
  const auto it = std::ranges::find(targets, name, [](const Target* t) { return t->name; });
  return it == targets.end() ? nullptr : *it;
}

void finding(std::string_view text) {
  std::fprintf(stderr, "FINDING: %.*s\n", static_cast<int>(text.size()), text.data());
  std::abort();
}

}  // namespace wtool::fuzz
