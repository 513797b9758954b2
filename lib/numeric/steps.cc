#include "lib/numeric/steps.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/measuring_step.h"
#include "lib/numeric/quantizer.h"

namespace wtool {
namespace {

static_assert(std::is_trivially_copyable_v<Drift>);

class CopyStep final : public Step {
 public:
  CopyStep(std::string name, TensorPtr from)
      : Step({{std::move(name), from->dtype(), from->shape()}}),
        from_(std::move(from)),
        small_(Tiling::of(*from_)),
        large_(Tiling::of(*from_, 1, elements_of(kLarge))),
        ready_(large_.units() > 0 && from_->raw(large_.box(0)).has_value()) {}

  std::uint64_t units() const override { return tiling().units(); }
  void spans(std::uint64_t unit, std::vector<Span>& add_to) const override {
    add_to.push_back(span_of(*from_, from_->dtype(), tiling().box(unit)));
  }
  std::optional<Extent> raw(std::uint64_t unit) const override {
    return from_->raw(tiling().box(unit));
  }
  void run(const Unit& unit) const override {
    from_->read(tiling().box(unit.index), unit.out[0], unit.scratch);
  }

 private:
  static constexpr std::uint64_t kLarge = std::uint64_t{64} << 20;
  std::uint64_t elements_of(std::uint64_t bytes) const {
    const DTypeInfo& t = info(from_->dtype());
    return bytes / t.block_bytes * t.block_elems;
  }
  // Units that the kernel copies need no memory; those that pass through ours do.
  const Tiling& tiling() const { return ready_ && !outputs()[0].big_endian ? large_ : small_; }

  TensorPtr from_;
  Tiling small_, large_;
  bool ready_;
};

class EncodeStep final : public MeasuringStep<Drift> {
 public:
  EncodeStep(std::string name, TensorPtr from, Encoder how)
      : MeasuringStep(how.outputs, std::move(name)), from_(std::move(from)), how_(std::move(how)) {}

  std::uint64_t units() const override { return how_.tiling.units(); }
  void spans(std::uint64_t unit, std::vector<Span>& add_to) const override {
    how_.spans(how_.tiling.box(unit), add_to);
  }
  void run(const Unit& unit) const override {
    const Box box = how_.tiling.box(unit.index);
    Scratch::Frame frame(unit.scratch);
    const auto values = frame.take<float>(box.elements());
    read_f32(*from_, box, values, unit.scratch);
    Drift drift;
    if (all_finite(values.data(), values.size())) {
      how_.encode(box, values, unit.out, drift, unit.scratch);
      if (drift.first_bad != Drift{}.first_bad)
        drift.first_bad = flat_index(*from_, box, drift.first_bad);
    } else {
      for (const MutableBytes& out : unit.out) std::fill(out.begin(), out.end(), std::byte{0});
      for (std::size_t i = 0; i < values.size(); ++i)
        if (!std::isfinite(values[i])) {
          ++drift.non_finite;
          drift.add_bad(flat_index(*from_, box, i));
        }
    }
    give(unit.found, drift);
  }
  void report(Report& to) const override { to.rows.push_back(total_.row(name_)); }

 private:
  TensorPtr from_;
  Encoder how_;
};

// ---- Casts

// A piece of a unit: its float values stay in the nearest cache. A multiple of every block.
constexpr std::size_t kPiece = 4096;

struct Piece {
  const std::byte* in;
  std::byte* out;
  std::size_t n;
  std::size_t at;  // of its first element in the unit
};

template <class T>
struct Integers;

// One worker's view of a cast, for one unit. Indices in drift() are within the unit.
class Caster {
 public:
  Caster(DType from, DType to, const CastOptions& options)
      : from_(from), to_(to), options_(options), source_(codec(from)), target_(codec(to)) {}
  void run(Bytes in, MutableBytes out, std::size_t elements, Scratch& scratch);
  Drift drift() const { return lanes_.fold(); }

 private:
  void same(const Piece&);
  void floats(const Piece&);
  template <class T>
  void integers(const Piece&);
  template <class T>
  void integers_to_floats(const Piece&, const Integers<T>&);
  const float* decode(const Piece&);
  const float* settle(const Piece&, const float* x);
  void measure(const Piece&, const float* x);
  void bad(std::uint64_t& counter, std::size_t at) {
    ++counter;
    lanes_.rest.add_bad(at);
  }

  DType from_, to_;
  CastOptions options_;
  const Codec &source_, &target_;
  DriftLanes lanes_;
  std::span<float> x_, y_, fitted_;  // one piece each
};

// Calls f with a value of the C++ type of an integer dtype (bool counts as u8).
template <class F>
bool with_integer(DType type, F&& f) {
  switch (type) {
    case DType::Bool:
    case DType::U8: f(std::uint8_t{}); return true;
    case DType::I8: f(std::int8_t{}); return true;
    case DType::U16: f(std::uint16_t{}); return true;
    case DType::I16: f(std::int16_t{}); return true;
    case DType::U32: f(std::uint32_t{}); return true;
    case DType::I32: f(std::int32_t{}); return true;
    case DType::U64: f(std::uint64_t{}); return true;
    case DType::I64: f(std::int64_t{}); return true;
    default: return false;
  }
}
bool is_integer(DType type) {
  return info(type).kind == Kind::Int || type == DType::Bool;
}

void Caster::run(Bytes in, MutableBytes out, std::size_t elements, Scratch& scratch) {
  Scratch::Frame frame(scratch);
  for (std::span<float>* s : {&x_, &y_, &fitted_}) *s = frame.take<float>(kPiece);
  for (std::size_t at = 0; at < elements; at += kPiece) {
    const Piece p{in.data() + checked_size(from_, at), out.data() + checked_size(to_, at),
                  std::min(kPiece, elements - at), at};
    if (from_ == to_)
      same(p);
    else if (is_integer(from_))
      with_integer(from_, [&]<class T>(T) { integers<T>(p); });
    else
      floats(p);
  }
}

void Caster::same(const Piece& p) {
  std::copy_n(p.in, checked_size(from_, p.n), p.out);
  if (options_.measure) measure(p, decode(p));
}

// f64 to f32 with a sticky last bit ("round to odd"): rounding again to any narrower type gives
// what rounding once would.
float to_odd(double value) {
  const float f = static_cast<float>(value);
  const double back = f;
  if (back == value || std::isnan(value)) return f;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(f);
  if (std::abs(back) > std::abs(value)) --bits;  // toward zero
  return std::bit_cast<float>(bits | 1);
}

const float* Caster::decode(const Piece& p) {
  if (from_ == DType::F32) {  // where it lies, if it can be read there
    if (reinterpret_cast<std::uintptr_t>(p.in) % alignof(float) == 0)
      return reinterpret_cast<const float*>(p.in);
    std::memcpy(x_.data(), p.in, p.n * sizeof(float));
  } else if (from_ == DType::F64 && to_ != DType::F32 && to_ != DType::F64) {
    const Bytes in(p.in, p.n * sizeof(double));
    for (std::size_t i = 0; i < p.n; ++i) x_[i] = to_odd(load<double>(in, i));
  } else {
    source_.decode(p.in, x_.data(), p.n);
  }
  return x_.data();
}

// Counts what the target cannot hold; gives what to encode instead.
const float* Caster::settle(const Piece& p, const float* x) {
  Drift& found = lanes_.rest;
  std::copy_n(x, p.n, fitted_.begin());
  for (std::size_t i = 0; i < p.n; ++i) {
    const float a = std::abs(x[i]);
    if (a < target_.too_large) continue;
    // An infinity that a finite f64 has become.
    const bool lost = from_ == DType::F64 && std::isinf(x[i]) &&
                      std::isfinite(load<double>(Bytes(p.in, p.n * sizeof(double)), i));
    if (std::isnan(x[i])) {
      if (!target_.has_nan) bad(found.non_finite, p.at + i);
    } else if (std::isinf(x[i]) && !lost) {
      if (!target_.has_infinity) bad(found.non_finite, p.at + i);
    } else {
      bad(found.overflows, p.at + i);
      if (options_.saturate) fitted_[i] = std::copysign(target_.largest, x[i]);
    }
  }
  return fitted_.data();
}

void Caster::floats(const Piece& p) {
  const float* x = decode(p);
  const bool fits = all_below(x, p.n, target_.too_large);
  target_.encode(fits ? x : settle(p, x), p.out, p.n);
  if (options_.measure) measure(p, x);
}

// Pairs with a value that is not finite are left out of the sums.
void Caster::measure(const Piece& p, const float* x) {
  target_.decode(p.out, y_.data(), p.n);
  if (!all_finite(x, p.n) || !all_finite(y_.data(), p.n)) {
    std::copy_n(x, p.n, fitted_.begin());
    for (std::size_t i = 0; i < p.n; ++i)
      if (!std::isfinite(x[i]) || !std::isfinite(y_[i])) fitted_[i] = y_[i] = 0;
    x = fitted_.data();
  }
  add_drift(x, y_.data(), p.n, nullptr, lanes_);
}

// True if `value` is exactly this integer.
template <class T>
bool is_exactly(double value, T integer) {
  const double end = std::ldexp(1.0, std::numeric_limits<T>::digits);
  const double begin = std::is_signed_v<T> ? -end : 0;
  return value >= begin && value < end && static_cast<T>(value) == integer;
}

// The integers of a piece.
template <class T>
struct Integers {
  Bytes in;
  bool is_bool;
  T operator[](std::size_t i) const {
    const T v = load<T>(in, i);
    return is_bool ? static_cast<T>(v != 0) : v;
  }
};

template <class T>
void Caster::integers(const Piece& p) {
  const Integers<T> in{{p.in, p.n * sizeof(T)}, from_ == DType::Bool};
  const MutableBytes out(p.out, checked_size(to_, p.n));
  std::uint64_t& overflows = lanes_.rest.overflows;
  if (to_ == DType::F64) {
    for (std::size_t i = 0; i < p.n; ++i) {
      const double v = static_cast<double>(in[i]);
      if (!is_exactly(v, in[i])) bad(overflows, p.at + i);
      store(out, v, i);
    }
  } else if (is_integer(to_)) {
    with_integer(to_, [&]<class To>(To) {
      using Limits = std::numeric_limits<To>;
      for (std::size_t i = 0; i < p.n; ++i) {
        const bool fits = std::in_range<To>(in[i]);
        if (!fits) bad(overflows, p.at + i);
        store<To>(out,
                  fits        ? static_cast<To>(in[i])
                  : in[i] < 0 ? Limits::min()
                              : Limits::max(),
                  i);
      }
    });
  } else {
    integers_to_floats(p, in);
  }
  if (options_.measure) measure(p, decode(p));
}

template <class T>
void Caster::integers_to_floats(const Piece& p, const Integers<T>& in) {
  const float most = options_.saturate ? target_.largest : std::numeric_limits<float>::infinity();
  const float* x = decode(p);
  for (std::size_t i = 0; i < p.n; ++i) fitted_[i] = std::clamp(x[i], -most, most);
  target_.encode(fitted_.data(), p.out, p.n);
  target_.decode(p.out, y_.data(), p.n);
  for (std::size_t i = 0; i < p.n; ++i)
    if (!is_exactly(y_[i], in[i])) bad(lanes_.rest.overflows, p.at + i);
}

class CastStep final : public TypeStep<Drift> {
 public:
  CastStep(const std::string& name, TensorPtr from, DType to, const CastOptions& options)
      : TypeStep(name, std::move(from), to), options_(options) {}

  void run(const Unit& unit) const override {
    const Box box = tiling_.box(unit.index);
    Scratch::Frame frame(unit.scratch);
    const auto in = frame.take<std::byte>(checked_size(from_->dtype(), box.elements()));
    from_->read(box, in, unit.scratch);
    Caster caster(from_->dtype(), to_, options_);
    caster.run(in, unit.out[0], box.elements(), unit.scratch);
    Drift drift = caster.drift();
    if (drift.first_bad != Drift{}.first_bad)
      drift.first_bad = flat_index(*from_, box, drift.first_bad);
    give(unit.found, drift);
  }
  void report(Report& to) const override { to.rows.push_back(total_.row(name_)); }

 private:
  CastOptions options_;
};

}  // namespace

std::unique_ptr<Step> copy_step(std::string name, TensorPtr from) {
  return std::make_unique<CopyStep>(std::move(name), std::move(from));
}

std::unique_ptr<Step> encode_step(std::string name, TensorPtr from, Encoder how) {
  return std::make_unique<EncodeStep>(std::move(name), std::move(from), std::move(how));
}

std::unique_ptr<Step> cast_step(std::string name, TensorPtr from, DType to,
                                const CastOptions& options) {
  if (const auto why = cast_refuses(*from, to)) throw Error(Fault::Usage, *why).in(name);
  if (info(to).kind == Kind::Block && from->dtype() != to)
    return quantize_step(
        std::move(name), std::move(from), to,
        {.method = Method::Exact, .measure = options.measure, .importance = nullptr});
  return std::make_unique<CastStep>(name, std::move(from), to, options);
}

std::optional<std::string> cast_refuses(const Tensor& from, DType to) {
  const DTypeInfo &source = info(from.dtype()), &target = info(to);
  if (find_codec(source.id) == nullptr)
    return fmt::format("the values of {} cannot be decoded by this version", source.name);
  if (source.id == to) return std::nullopt;
  const bool integer = is_integer(source.id);
  const Codec* codec = find_codec(to);
  const bool encodes = target.kind == Kind::Block ? find_quantizer(to) != nullptr
                                                  : codec != nullptr && codec->encode != nullptr;
  if (target.kind == Kind::Int ? !integer : !encodes)
    return target.kind == Kind::Int
               ? fmt::format("{} values are not whole numbers, so they cannot become {}",
                             source.name, target.name)
               : fmt::format("no way is known from {} to {}", source.name, target.name);
  if (integer && target.kind == Kind::Block)
    return fmt::format("{} values are no weights to be stored as {}", source.name, target.name);
  // Blocks do not cross rows, and sub-byte types begin rows on whole bytes.
  const std::uint64_t row = from.shape().empty() ? 1 : from.shape().back();
  if (from.elements() > 0 && row % target.block_elems != 0)
    return fmt::format("its rows of {} are not a multiple of {}, the block of {}", row,
                       target.block_elems, target.name);
  return std::nullopt;
}

}  // namespace wtool
