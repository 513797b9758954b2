// The rounds of a check: all values once, then what looks alike.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <tuple>
#include <unordered_map>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/numeric/health.h"
#include "lib/numeric/health_rules.h"

namespace wtool {
namespace {

constexpr std::uint64_t kPiece = std::uint64_t{1} << 18;  // bytes that stay in a core's cache
constexpr std::uint64_t kUnit = 16 * kPiece;
constexpr std::size_t kTogether = 512;  // small tensors in a unit
// Two tensors of fewer bytes are not worth a word.
constexpr std::uint64_t kLeastShared = 4096;

std::uint64_t whole_items(std::uint64_t bytes, DType type) noexcept {
  return bytes / info(type).block_bytes * info(type).block_bytes;
}

struct Candidate {
  std::uint64_t key;       // alike in dtype, shape, and what the first round saw
  std::uint32_t entry;     // of the catalog
  std::uint32_t like = 0;  // an earlier candidate that this one may equal; itself: none
};

// A seeded digest of all bytes: other contents cannot be made to share one.
class DigestStep final : public Step {
 public:
  explicit DigestStep(Extent of) : of_(std::move(of)) {}
  std::uint64_t units() const override { return ceil_div(of_.bytes, kPiece); }
  void run(const Unit& unit) const override {
    const std::uint64_t at = unit.index * kPiece;
    Scratch::Frame frame(unit.scratch);
    const auto bytes = frame.take<std::byte>(std::min(kPiece, of_.bytes - at));
    of_.source->read(of_.offset + at, bytes);
    append(unit.found, hash_text(as_text(bytes)));
  }
  void fold(std::uint64_t, Buffer& found) override {
    const std::uint64_t both[] = {digest_, load<std::uint64_t>(found)};
    digest_ = hash_text(as_text(std::as_bytes(std::span(both))));
  }
  std::uint64_t digest() const noexcept { return digest_; }

 private:
  Extent of_;
  std::uint64_t digest_ = 0;
};

class CompareStep final : public Step {
 public:
  CompareStep(Extent a, Extent b) : a_(std::move(a)), b_(std::move(b)) {}
  std::uint64_t units() const override { return ceil_div(a_.bytes, kPiece); }
  void run(const Unit& unit) const override {
    const std::uint64_t at = unit.index * kPiece;
    Scratch::Frame frame(unit.scratch);
    const auto a = frame.take<std::byte>(std::min(kPiece, a_.bytes - at));
    const auto b = frame.take<std::byte>(a.size());
    a_.source->read(a_.offset + at, a);
    b_.source->read(b_.offset + at, b);
    if (std::memcmp(a.data(), b.data(), a.size()) != 0) unit.found.push_back({});
  }
  void fold(std::uint64_t, Buffer& found) override { same_ = same_ && found.empty(); }
  bool same() const noexcept { return same_; }

 private:
  Extent a_, b_;
  bool same_ = true;
};

// What is tied to the embeddings, and can be left out.
bool is_head(std::string_view name) noexcept {
  return name.ends_with("lm_head.weight") || name == "output.weight";
}

}  // namespace

struct ValueCheck::State {
  State(std::shared_ptr<const Model> of, std::span<const std::uint32_t> these, Diagnostics& to,
        bool says_tied);

  std::shared_ptr<const Model> model;
  Diagnostics& faults;
  bool tied;
  std::vector<Role> roles;
  std::vector<std::uint32_t> entries;  // in the order of the files; none empty
  HealthTotals totals;
  std::vector<Candidate> candidates;
  std::vector<std::shared_ptr<DigestStep>> digests;
  std::vector<std::shared_ptr<CompareStep>> compares;
  enum class Round : std::uint8_t { Values, Digests, Compares, Done } round = Round::Values;

  std::unordered_map<std::uint32_t, TensorEntry> retyped;  // opaque elements as the user has them

  const TensorEntry& entry(std::uint32_t i) const {
    const auto it = retyped.empty() ? retyped.end() : retyped.find(i);
    return it == retyped.end() ? model->catalog.entries()[i] : it->second;
  }
  Extent extent(const Candidate& c) const { return model->catalog.extent(entry(c.entry)); }

  void finish(std::uint32_t index, const Health& health);
  void keep_alike();
  bool plan_digests(Plan& plan);
  bool plan_compares(Plan& plan);
  void tell();
};

// One pass over all bytes. A unit is a piece of a large tensor, or several small ones that lie
// together: a header may have a million.
class ValueCheck::Scan final : public Step {
 public:
  explicit Scan(State& state) : state_(state) {
    const std::size_t n = state.entries.size();
    for (std::size_t i = 0; i < n;) {
      const std::size_t next = together(i);
      works_.push_back({i, next - i, units_});
      units_ += next - i > 1 ? 1 : units_of(state.entry(state.entries[i]));
      i = next;
    }
  }
  std::uint64_t units() const override { return units_; }
  void run(const Unit& unit) const override {
    const Work& work = work_of(unit.index);
    if (work.count > 1) return run_group(work, unit);
    const TensorEntry& e = state_.entry(state_.entries[work.first]);
    const std::uint64_t step = whole_items(kUnit, e.dtype), at = (unit.index - work.unit) * step;
    Health health;
    read(e, at, std::min(step, e.bytes - at), unit.scratch, health);
    give(unit.found, health);
  }
  void fold(std::uint64_t unit, Buffer& found) override {
    const Work& work = work_of(unit);
    for (std::size_t k = 0; k < work.count; ++k) current_at(work, unit, k, load<Health>(found, k));
    found.clear();
  }

 private:
  struct Work {
    std::size_t first, count;  // of the entries
    std::uint64_t unit;        // its first
  };
  const Work& work_of(std::uint64_t unit) const {
    return *--std::ranges::upper_bound(works_, unit, {}, &Work::unit);
  }
  static std::uint64_t units_of(const TensorEntry& e) {
    return ceil_div(e.bytes, whole_items(kUnit, e.dtype));
  }
  static void give(Buffer& to, const Health& health) {
    append(to, std::as_bytes(std::span(&health, 1)));
  }
  // The end of the entries that are read together with this one.
  std::size_t together(std::size_t i) const {
    const TensorEntry& first = state_.entry(state_.entries[i]);
    std::size_t next = i + 1;
    if (first.bytes > kPiece) return next;
    for (; next < state_.entries.size() && next - i < kTogether; ++next) {
      const TensorEntry& e = state_.entry(state_.entries[next]);
      if (e.source != first.source || e.offset + e.bytes - first.offset > kPiece) break;
    }
    return next;
  }
  void run_group(const Work& work, const Unit& unit) const {
    const TensorEntry& first = state_.entry(state_.entries[work.first]);
    std::uint64_t end = 0;
    for (std::size_t k = 0; k < work.count; ++k) {
      const TensorEntry& e = state_.entry(state_.entries[work.first + k]);
      end = std::max(end, e.offset + e.bytes);
    }
    Scratch::Frame frame(unit.scratch);
    const auto bytes = frame.take<std::byte>(end - first.offset);
    state_.model->catalog.sources()[first.source]->read(first.offset, bytes);
    const auto copy = frame.take<std::byte>(bytes.size());  // tensors may overlap: swap only copies
    for (std::size_t k = 0; k < work.count; ++k) {
      const TensorEntry& e = state_.entry(state_.entries[work.first + k]);
      MutableBytes mine = bytes.subspan(e.offset - first.offset, e.bytes);
      if (e.big_endian) {
        std::ranges::copy(mine, copy.begin());
        mine = copy.first(mine.size());
        swap_endian(e.dtype, mine);
      }
      give(unit.found, health_of(e.dtype, mine));
    }
  }
  void read(const TensorEntry& e, std::uint64_t at, std::uint64_t bytes, Scratch& scratch,
            Health& health) const {
    const std::uint64_t step = whole_items(kPiece, e.dtype);
    const std::size_t item =
        info(e.dtype).block_bytes / (info(e.dtype).kind == Kind::Complex ? 2 : 1);
    Scratch::Frame frame(scratch);
    const auto buffer = frame.take<std::byte>(std::min(step, bytes));
    const Source& source = *state_.model->catalog.sources()[e.source];
    for (const std::uint64_t end = at + bytes; at < end; at += step) {
      const auto piece = buffer.first(std::min(step, end - at));
      source.read(e.offset + at, piece);
      if (e.big_endian) swap_endian(e.dtype, piece);
      health.append(health_of(e.dtype, piece, at / item));
    }
  }
  void current_at(const Work& work, std::uint64_t unit, std::size_t k, const Health& found) {
    const std::uint32_t index = state_.entries[work.first + k];
    if (work.count > 1) return state_.finish(index, found);
    if (unit == work.unit) current_ = {};
    current_.append(found);
    if (unit + 1 == work.unit + units_of(state_.entry(index))) state_.finish(index, current_);
  }

  State& state_;
  std::vector<Work> works_;
  std::uint64_t units_ = 0;
  Health current_;  // of the tensor that is being folded
};

void ValueCheck::State::finish(std::uint32_t index, const Health& h) {
  const TensorEntry& e = entry(index);
  ++totals.tensors;
  totals.bytes += e.bytes;
  totals.nan += h.nan.count;
  totals.infinite += h.infinite.count;
  totals.bad_scales += h.scales.not_finite;
  judge(model->catalog, e, roles[index], h, faults);
  if (e.bytes < kLeastShared || h.constant || h.zeros == h.items) return;
  std::vector<std::uint64_t> facts{static_cast<std::uint64_t>(e.dtype),
                                   e.big_endian,
                                   e.column_major,
                                   h.zeros,
                                   h.subnormals,
                                   h.largest,
                                   h.pattern,
                                   h.sample};
  facts.insert(facts.end(), e.shape.begin(), e.shape.end());
  candidates.push_back({hash_text(as_text(std::as_bytes(std::span(facts)))), index});
}

// Drops those whose key no other has.
void ValueCheck::State::keep_alike() {
  std::ranges::stable_sort(candidates, {}, &Candidate::key);
  std::size_t kept = 0;
  for (std::size_t i = 0, next; i < candidates.size(); i = next) {
    for (next = i + 1; next < candidates.size() && candidates[next].key == candidates[i].key;)
      ++next;
    if (next - i < 2) continue;
    for (std::size_t k = i; k < next; ++k) {
      candidates[k].like = candidates[i].entry;
      candidates[kept++] = candidates[k];
    }
  }
  candidates.resize(kept);
}

bool ValueCheck::State::plan_digests(Plan& plan) {
  keep_alike();
  for (const Candidate& c : candidates) {
    digests.push_back(std::make_shared<DigestStep>(extent(c)));
    plan.measures.push_back(digests.back());
  }
  return !candidates.empty();
}

bool ValueCheck::State::plan_compares(Plan& plan) {
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const std::uint64_t both[] = {candidates[i].key, digests[i]->digest()};
    candidates[i].key = hash_text(as_text(std::as_bytes(std::span(both))));
  }
  digests.clear();
  keep_alike();
  std::erase_if(candidates, [&](const Candidate& c) {  // the first of each, and one range twice
    return entry(c.entry).offset == entry(c.like).offset &&
           entry(c.entry).source == entry(c.like).source;
  });
  for (const Candidate& c : candidates) {
    compares.push_back(
        std::make_shared<CompareStep>(model->catalog.extent(entry(c.like)), extent(c)));
    plan.measures.push_back(compares.back());
  }
  return !candidates.empty();
}

void ValueCheck::State::tell() {
  std::vector<std::size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto place = [&](std::size_t i) {
    const TensorEntry& e = entry(candidates[i].entry);
    return std::pair(e.source, e.offset);
  };
  std::ranges::sort(order, {}, place);
  for (const std::size_t i : order) {
    if (!compares[i]->same()) continue;
    const TensorEntry *again = &entry(candidates[i].entry), *first = &entry(candidates[i].like);
    if (is_head(first->name) && !is_head(again->name)) std::swap(again, first);
    ++totals.duplicates;
    totals.duplicate_bytes += again->bytes;
    faults.report(
        kDuplicate, Place(model->catalog.sources()[again->source]->name(), "tensor", again->name),
        again->offset,
        fmt::format("stores the {} bytes of tensor {} again", again->bytes, quoted(first->name)),
        tied && is_head(again->name)
            ? "config.json says tie_word_embeddings: 'wtool convert -x' leaves this one out"
            : "if the engine can share them, 'wtool convert -x' leaves this one out");
  }
}

ValueCheck::State::State(std::shared_ptr<const Model> of, std::span<const std::uint32_t> these,
                         Diagnostics& to, bool says_tied)
    : model(std::move(of)), faults(to), tied(says_tied), roles(roles_of(*model)) {
  for (const LogicalTensor& t : model->tensors)
    if (t.count == 1 && t.dtype != model->part(t, 0).dtype) {
      TensorEntry e = model->part(t, 0);
      e.dtype = t.dtype;
      retyped.emplace(model->parts_of(t)[0], e);
    }
  // Bytes that scale the codes of another tensor are powers of two, whose 0xFF is NaN. What NF4
  // calls absmax are codes themselves.
  for (std::uint32_t i = 0; i < roles.size(); ++i) {
    TensorEntry e = model->catalog.entries()[i];
    if (roles[i] != Role::Scales || e.dtype != DType::U8 || e.name.ends_with("absmax")) continue;
    e.dtype = DType::F8_E8M0;
    retyped.emplace(i, e);
  }
  for (const std::uint32_t i : these)
    if (entry(i).bytes > 0) entries.push_back(i);
  std::ranges::sort(entries, {}, [&](std::uint32_t i) {
    return std::tuple(entry(i).source, entry(i).offset, i);
  });
}

ValueCheck::ValueCheck(std::shared_ptr<const Model> model, std::span<const std::uint32_t> entries,
                       Diagnostics& faults, bool tied)
    : state_(std::make_unique<State>(std::move(model), entries, faults, tied)) {}
ValueCheck::~ValueCheck() = default;

bool ValueCheck::next(Plan& plan) {
  using Round = State::Round;
  State& s = *state_;
  switch (s.round) {
    case Round::Values:
      plan.measures.push_back(std::make_shared<Scan>(s));
      s.round = Round::Digests;
      return true;
    case Round::Digests:
      s.round = Round::Compares;
      if (s.plan_digests(plan)) return true;
      [[fallthrough]];
    case Round::Compares:
      s.round = Round::Done;
      if (s.plan_compares(plan)) return true;
      [[fallthrough]];
    case Round::Done: break;
  }
  if (!s.candidates.empty()) s.tell();
  s.candidates.clear();
  return false;
}

const HealthTotals& ValueCheck::totals() const noexcept {
  return state_->totals;
}

}  // namespace wtool
