#include "cli/values.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/numeric/codec.h"

namespace wtool {
namespace {

template <class T>
void append_number(std::string& to, Bytes elements, std::size_t i) {
  fmt::format_to(std::back_inserter(to), "{}", load<T>(elements, i));
}

template <class T>
void append_complex(std::string& to, Bytes elements, std::size_t i) {
  append_number<T>(to, elements, 2 * i);
  const T imaginary = load<T>(elements, 2 * i + 1);
  if (!std::signbit(imaginary)) to += '+';
  append_number<T>(to, elements, 2 * i + 1);
  to += 'j';
}

}  // namespace

ElementText::ElementText(DType dtype, bool many, bool all_digits)
    : dtype_(dtype), all_digits_(all_digits) {
  const DTypeInfo& t = info(dtype);
  if (t.kind == Kind::Opaque)
    throw Error(Fault::Unsupported, fmt::format("{} is opaque bytes, without values", t.name))
        .hint("say what they are, such as --as bf16, or take the bytes with --to raw");
  if (t.block_elems != 1)
    throw Error(Fault::Unsupported, fmt::format("{} has no single elements", t.name));
  if (t.kind == Kind::Float && t.block_bytes <= 2) static_cast<void>(codec(dtype));
  if (!many || t.kind != Kind::Float || t.block_bytes > 2) return;
  const std::uint32_t codes = t.block_bytes == 1 ? 1u << 8 : 1u << 16;
  ready_.reserve(codes);
  for (std::uint32_t bits = 0; bits < codes; ++bits) ready_.push_back(narrow(bits));
}

// Tries 1, 2, … digits until the text, rounded to the type again, gives the same bits.
std::string ElementText::narrow(std::uint32_t bits) const {
  const Codec& c = codec(dtype_);
  std::byte in[4], back[4];
  store(MutableBytes(in), bits);
  float value = 0;
  c.decode(in, &value, 1);
  if (all_digits_) return fmt::format("{}", static_cast<double>(value));
  // Integers in full: 448 reads better than the shorter 450 that rounds to it.
  const bool whole = std::abs(value) < 1e6f && value == std::trunc(value);
  if (!std::isfinite(value) || !c.encode || whole) return fmt::format("{}", value);
  const std::size_t width = info(dtype_).block_bytes;
  for (int digits = 1; digits < 9; ++digits) {
    const std::string text = fmt::format("{:.{}g}", value, digits);
    float again = 0;
    std::from_chars(text.data(), text.data() + text.size(), again);
    if (!std::isfinite(again)) continue;
    c.encode(&again, back, 1);
    if (std::equal(in, in + width, back)) return fmt::format("{}", again);
  }
  return fmt::format("{}", value);
}

void ElementText::append(std::string& to, Bytes elements, std::size_t i) const {
  switch (dtype_) {
    case DType::Bool: to += load<std::uint8_t>(elements, i) ? "true" : "false"; return;
    case DType::U8: return append_number<std::uint8_t>(to, elements, i);
    case DType::I8: return append_number<std::int8_t>(to, elements, i);
    case DType::U16: return append_number<std::uint16_t>(to, elements, i);
    case DType::I16: return append_number<std::int16_t>(to, elements, i);
    case DType::U32: return append_number<std::uint32_t>(to, elements, i);
    case DType::I32: return append_number<std::int32_t>(to, elements, i);
    case DType::U64: return append_number<std::uint64_t>(to, elements, i);
    case DType::I64: return append_number<std::int64_t>(to, elements, i);
    case DType::F32: return append_number<float>(to, elements, i);
    case DType::F64: return append_number<double>(to, elements, i);
    case DType::C64: return append_complex<float>(to, elements, i);
    case DType::C128: return append_complex<double>(to, elements, i);
    default: break;
  }
  const std::uint32_t bits = info(dtype_).block_bytes == 1 ? load<std::uint8_t>(elements, i)
                                                           : load<std::uint16_t>(elements, i);
  to += ready_.empty() ? narrow(bits) : ready_[bits];
}

namespace {

class Decoded final : public Tensor {
 public:
  Decoded(TensorPtr of, DType as) : Tensor(as, of->shape()), of_(std::move(of)) {
    static_cast<void>(codec(of_->dtype()));  // throws now, not after half the output
  }

  void read(const Box& box, MutableBytes out, Scratch& scratch) const override {
    const Box inner = of_->whole();
    const std::uint64_t block = info(of_->dtype()).block_elems;
    const bool ends = box.col + box.cols == inner.cols;
    if (inner.cols == whole().cols && box.col % block == 0 && (box.cols % block == 0 || ends))
      return decode(box, out, scratch);
    const std::size_t width = info(dtype()).block_bytes;
    for (std::uint64_t r = 0; r < box.rows; ++r) {
      const std::uint64_t first = (box.row + r) * whole().cols + box.col;
      const std::uint64_t row = first / inner.cols, col = first % inner.cols;
      const std::uint64_t begin = col / block * block;
      const std::uint64_t end = std::min(align_up(col + box.cols, block), inner.cols);
      Scratch::Frame frame(scratch);
      const auto bytes = frame.take<std::byte>((end - begin) * width);
      decode({row, 1, begin, end - begin}, bytes, scratch);
      std::ranges::copy(bytes.subspan((col - begin) * width, box.cols * width),
                        out.subspan(r * box.cols * width).begin());
    }
  }

 private:
  // Through typed scratch: `out` need not be aligned.
  void decode(const Box& box, MutableBytes out, Scratch& scratch) const {
    Scratch::Frame frame(scratch);
    if (dtype() == DType::F64) {
      const auto values = frame.take<double>(box.elements());
      read_f64(*of_, box, values, scratch);
      std::ranges::copy(std::as_bytes(values), out.begin());
    } else {
      const auto values = frame.take<float>(box.elements());
      read_f32(*of_, box, values, scratch);
      std::ranges::copy(std::as_bytes(values), out.begin());
    }
  }
  TensorPtr of_;
};

Error bad_slice(std::string_view slice, const std::string& why) {
  return Error(Fault::Usage, fmt::format("slice [{}]: {}", printable(slice), why))
      .hint("a slice reads like 'name[0:4,:8]': a number, a range or ':' for each dimension");
}

// A number that may count from the end, or nothing.
std::optional<std::int64_t> bound(std::string_view text, std::string_view slice) {
  if (text.empty()) return std::nullopt;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw bad_slice(slice, fmt::format("{} is no number", wtool::quoted(text)));
  return value;
}

Range range_of(std::string_view part, std::uint64_t extent, std::size_t dimension,
               std::string_view slice) {
  const auto n = static_cast<std::int64_t>(
      std::min<std::uint64_t>(extent, std::numeric_limits<std::int64_t>::max()));
  const auto from_start = [n](std::int64_t v) { return v < 0 ? v + n : v; };
  const auto colon = part.find(':');
  if (colon == std::string_view::npos) {
    const auto given = bound(part, slice);
    if (!given) throw bad_slice(slice, "a dimension is empty");
    const std::int64_t at = from_start(*given);
    if (at < 0 || at >= n)
      throw bad_slice(
          slice, fmt::format("index {} is outside dimension {} of {}", *given, dimension, extent));
    return {static_cast<std::uint64_t>(at), static_cast<std::uint64_t>(at) + 1, true};
  }
  const std::string_view last = part.substr(colon + 1);
  if (last.find(':') != std::string_view::npos) throw bad_slice(slice, "steps are not supported");
  const std::int64_t begin =
      std::clamp<std::int64_t>(from_start(bound(part.substr(0, colon), slice).value_or(0)), 0, n);
  const std::int64_t end =
      std::clamp<std::int64_t>(from_start(bound(last, slice).value_or(n)), 0, n);
  return {static_cast<std::uint64_t>(begin), static_cast<std::uint64_t>(std::max(begin, end)),
          false};
}

std::string_view trimmed(std::string_view s) noexcept {
  while (s.starts_with(' ')) s.remove_prefix(1);
  while (s.ends_with(' ')) s.remove_suffix(1);
  return s;
}

}  // namespace

TensorPtr decoded(TensorPtr of, DType as) {
  return std::make_shared<Decoded>(std::move(of), as);
}

Wanted split_slice(std::string_view text) noexcept {
  const auto open = text.rfind('[');
  if (!text.ends_with(']') || open == std::string_view::npos)
    return {.name = text, .slice = {}, .sliced = false};
  return {.name = text.substr(0, open),
          .slice = text.substr(open + 1, text.size() - open - 2),
          .sliced = true};
}

std::vector<Range> parse_slice(std::string_view slice, ShapeView shape) {
  std::vector<std::string_view> parts;
  for (std::size_t at = 0; at <= slice.size() && !slice.empty();) {
    const std::size_t end = std::min(slice.find(',', at), slice.size());
    parts.push_back(trimmed(slice.substr(at, end - at)));
    at = end + 1;
  }
  const auto dots = std::ranges::find(parts, "...");
  const bool rest = dots != parts.end();
  if (std::ranges::count(parts, "...") > 1) throw bad_slice(slice, "'...' stands there twice");
  if (parts.size() - rest > shape.size())
    throw bad_slice(
        slice, fmt::format("{} dimensions for a shape of {}", parts.size() - rest, to_text(shape)));
  const std::size_t missing = shape.size() - (parts.size() - rest);
  std::vector<std::string_view> all(parts.begin(), dots);
  if (rest) {
    all.insert(all.end(), missing, ":");
    all.insert(all.end(), dots + 1, parts.end());
  } else {
    all.insert(all.end(), missing, ":");
  }
  std::vector<Range> ranges;
  for (std::size_t d = 0; d < shape.size(); ++d)
    ranges.push_back(range_of(all[d], shape[d], d, slice));
  return ranges;
}

}  // namespace wtool
