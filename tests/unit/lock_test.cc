#include "lib/model/lock.h"

#include <algorithm>
#include <limits>

#include "tests/catch.h"

namespace wtool {
namespace {

using What = LockChange::What;

LockedTensor tensor(std::string name) {
  LockedTensor t;
  t.name = std::move(name);
  t.dtype = "bf16";
  t.scheme = "plain";
  t.shape = {10, 10};
  t.envelope = Envelope{.min = -1, .max = 2, .absmax = 2, .rms = 0.5};
  t.counted = true;
  t.zeros = 4;
  return t;
}

std::vector<What> kinds(const LockedTensor& was, const LockedTensor& now, double tolerance = 0.1) {
  std::vector<What> out;
  const std::vector<LockedTensor> one{now};
  for (const LockChange& c : changes({tolerance, {was}}, one)) out.push_back(c.what);
  return out;
}
// What a change to one locked tensor is found to be.
template <class F>
std::vector<What> after(F change, double tolerance = 0.1) {
  LockedTensor now = tensor("a");
  change(now);
  return kinds(tensor("a"), now, tolerance);
}
using Kinds = std::vector<What>;

TEST_CASE("locked figures have four digits", "[lock]") {
  CHECK(lock_rounded(0.123456) == 0.1235);
  CHECK(lock_rounded(-123456) == -123500);
  CHECK(lock_rounded(0) == 0);
  CHECK(lock_rounded(65504) == 65500);
  CHECK(lock_rounded(5e-324) == 5e-324);
  constexpr double kMost = std::numeric_limits<double>::max();
  CHECK(lock_rounded(kMost) == kMost);  // 1.798e308 would be an infinity
}

TEST_CASE("tensors come and go, in the order of layers", "[lock]") {
  const Lock lock{0.1, {tensor("l.1.w"), tensor("l.2.w"), tensor("l.10.w")}};
  CHECK(std::ranges::is_sorted(lock.tensors, lock_less));
  const std::vector<LockedTensor> now{tensor("a"), tensor("l.2.w"), tensor("l.3.w"),
                                      tensor("l.10.w"), tensor("z")};
  std::vector<std::pair<What, std::string>> got;
  for (const LockChange& c : changes(lock, now)) got.emplace_back(c.what, c.tensor);
  CHECK(got == std::vector<std::pair<What, std::string>>{{What::Added, "a"},
                                                         {What::Removed, "l.1.w"},
                                                         {What::Added, "l.3.w"},
                                                         {What::Added, "z"}});
  CHECK(changes(lock, {}).size() == 3);
  CHECK(changes({}, now).size() == 5);
  CHECK(changes(lock, lock.tensors).empty());
}

TEST_CASE("names that natural order takes for equal are told apart", "[lock]") {
  Lock lock{0.1, {tensor("l.01"), tensor("l.1")}};
  std::ranges::sort(lock.tensors, lock_less);
  CHECK(lock_less(lock.tensors[0], lock.tensors[1]));
  CHECK_FALSE(lock_less(lock.tensors[1], lock.tensors[0]));
  CHECK(changes(lock, lock.tensors).empty());
  CHECK(changes(lock, std::vector{tensor("l.1")}).size() == 1);
}

TEST_CASE("dtype, scheme, shape and size are each named, and then nothing of the values",
          "[lock]") {
  CHECK(after([](LockedTensor& t) { t.dtype = "f16"; }) == Kinds{What::OtherDtype});
  CHECK(after([](LockedTensor& t) { t.scheme = "gptq"; }) == Kinds{What::OtherScheme});
  CHECK(after([](LockedTensor& t) { t.shape = {100}; }) == Kinds{What::OtherShape});
  CHECK(after([](LockedTensor& t) { t.bytes = 9; }) == Kinds{What::OtherBytes});
  CHECK(after([](LockedTensor& t) {
          t.dtype = "f16";
          t.shape = {1};
          t.bytes = 9;
          t.nan = 9;
          t.envelope->max = 9;
        }) == Kinds{What::OtherDtype, What::OtherShape});
}

TEST_CASE("values may leave the envelope by the tolerance, not by more", "[lock]") {
  // absmax 2, a tenth: 0.2 beyond either end
  CHECK(after([](LockedTensor& t) { t.envelope->min = -1.2; }).empty());
  CHECK(after([](LockedTensor& t) { t.envelope->min = -1.21; }) == Kinds{What::Values});
  CHECK(after([](LockedTensor& t) { t.envelope->max = 2.2; }).empty());
  CHECK(after([](LockedTensor& t) { t.envelope->max = 2.21; }) == Kinds{What::Values});
  CHECK(after([](LockedTensor& t) { t.envelope->min = t.envelope->max = 0; }).empty());
  CHECK(after([](LockedTensor& t) { t.envelope->rms = 0.55; }).empty());
  CHECK(after([](LockedTensor& t) { t.envelope->rms = 0.551; }) == Kinds{What::Values});
  CHECK(after([](LockedTensor& t) { t.envelope->rms = 0.449; }) == Kinds{What::Values});
  CHECK(after([](LockedTensor& t) { t.zeros = 14; }).empty());
  CHECK(after([](LockedTensor& t) { t.zeros = 15; }) == Kinds{What::Values});
  CHECK(after([](LockedTensor& t) { t.nan = 1; }) == Kinds{What::NonFinite});
  CHECK(after([](LockedTensor& t) { t.inf = 1; }) == Kinds{What::NonFinite});
  CHECK(after([](LockedTensor& t) { t.envelope.reset(); }) == Kinds{What::Values});
  CHECK(after([](LockedTensor& t) {
          t.counted = false;
          t.envelope.reset();
        }) == Kinds{What::Values});
}

TEST_CASE("a tolerance of zero takes only the same figures", "[lock]") {
  CHECK(after([](LockedTensor&) {}, 0).empty());
  CHECK(after([](LockedTensor& t) { t.envelope->max = 2.001; }, 0) == Kinds{What::Values});
  CHECK(after([](LockedTensor& t) { t.zeros = 5; }, 0) == Kinds{What::Values});
  LockedTensor zero = tensor("a");
  zero.envelope = Envelope{};
  CHECK(kinds(zero, zero).empty());
  LockedTensor other = zero;
  other.envelope->rms = 1e-30;
  CHECK(kinds(zero, other) == Kinds{What::Values});
}

TEST_CASE("figures that a lock does not have are not compared", "[lock]") {
  LockedTensor bare = tensor("a");
  bare.envelope.reset();
  bare.counted = false;
  LockedTensor now = tensor("a");
  now.nan = 7;
  now.sha256 = {"00"};
  CHECK(kinds(bare, now).empty());
}

TEST_CASE("one stored part that differs is a digest that differs", "[lock]") {
  LockedTensor was = tensor("a");
  was.sha256 = {"aa", "bb"};
  LockedTensor now = was;
  CHECK(kinds(was, now).empty());
  now.sha256[1] = "bc";
  CHECK(kinds(was, now) == Kinds{What::Digest});
  now.sha256 = {"aa"};
  CHECK(kinds(was, now) == Kinds{What::Digest});
  now.sha256 = {};
  CHECK(kinds(was, now) == Kinds{What::Digest});
  const Lock lock{0.1, {was}};
  now.sha256 = {"aa", "bc"};
  CHECK(changes(lock, std::vector{now})[0].message == "sha256 of part 2 bc…, locked as bb…");
}

}  // namespace
}  // namespace wtool
