#include "lib/pack/codec.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/numeric/kernels/planes.h"

namespace wtool {
namespace {

constexpr std::uint64_t kChunk = std::uint64_t{1} << 20;

struct KindName {
  Codec::Kind kind;
  std::string_view name;
};
constexpr std::array kKinds{
    KindName{Codec::Kind::Plain, "bytes"},     KindName{Codec::Kind::Bf16, "bf16"},
    KindName{Codec::Kind::F32, "f32"},         KindName{Codec::Kind::Columns, "columns"},
    KindName{Codec::Kind::Delta16, "delta16"}, KindName{Codec::Kind::Delta32, "delta32"}};

Codec columns(std::uint16_t block, std::vector<std::vector<ByteColumn>> planes) {
  return {Codec::Kind::Columns, block, std::move(planes)};
}
// Blocks with `scales` f16 numbers at the places given: their high bytes, their low bytes, then the
// other columns, one plane each.
Codec block_codec(DType dtype, std::initializer_list<std::uint16_t> scales,
                  std::initializer_list<ByteColumn> others) {
  std::vector<std::vector<ByteColumn>> planes(2);
  for (const std::uint16_t at : scales) {
    planes[0].push_back({static_cast<std::uint16_t>(at + 1), 1});
    planes[1].push_back({at, 1});
  }
  for (const ByteColumn& c : others) planes.push_back({c});
  return columns(info(dtype).block_bytes, std::move(planes));
}
// Elements of several bytes, each byte a plane, the lowest first.
Codec byte_planes(std::uint16_t width) {
  std::vector<std::vector<ByteColumn>> planes;
  for (std::uint16_t i = 0; i < width; ++i) planes.push_back({{i, 1}});
  return columns(width, std::move(planes));
}

// How one chunk lies in its planes.
struct Measure {
  std::size_t elements = 0, rest = 0;  // whole blocks, and bytes after them
};
Measure measure(const Codec& codec, std::size_t bytes) noexcept {
  return {bytes / codec.block, bytes % codec.block};
}
std::size_t bytes_of(const std::vector<ByteColumn>& plane) noexcept {
  std::size_t sum = 0;
  for (const ByteColumn& c : plane) sum += c.length;
  return sum;
}
// Of the planes that are whole elements, in order; the size of 'rest' is in no formula.
std::vector<std::size_t> plane_sizes(const Codec& codec, std::size_t bytes) {
  const auto [n, rest] = measure(codec, bytes);
  switch (codec.kind) {
    case Codec::Kind::Plain: return {bytes};
    case Codec::Kind::Bf16: return {ceil_div(n, 2), n};
    case Codec::Kind::F32: return {ceil_div(n, 2), n, n, n};
    case Codec::Kind::Columns: {
      std::vector<std::size_t> out;
      for (const auto& plane : codec.columns) out.push_back(n * bytes_of(plane));
      out.back() += rest;
      return out;
    }
    case Codec::Kind::Delta16: return {n, n + rest};
    case Codec::Kind::Delta32: return {n, n, n, n + rest};
  }
  return {};
}
bool has_exponents(const Codec& codec) noexcept {
  return codec.kind == Codec::Kind::Bf16 || codec.kind == Codec::Kind::F32;
}

// The largest exponent of the twelve in a row that most elements have: what is not among them costs
// a byte more. From one element in sixteen.
std::uint8_t choose_top(Bytes chunk, std::size_t n, std::size_t width) noexcept {
  std::uint32_t counters[256] = {};
  count_exponents(chunk.data(), n, width, n < 4096 ? 1 : 16, counters);
  std::uint64_t within = 0, most = 0;
  unsigned top = kEscape - 1;
  for (unsigned e = 0; e < 256; ++e) {
    within += counters[e];
    if (e >= kEscape) within -= counters[e - kEscape];
    if (e + 1 < kEscape || within < most || within == 0) continue;
    if (within == most && counters[e] == 0) continue;  // of equals the highest that is there
    most = within;
    top = e;
  }
  return static_cast<std::uint8_t>(top);
}

void gather(const std::vector<ByteColumn>& plane, Bytes in, std::size_t blocks, std::size_t block,
            std::byte* out) {
  const std::size_t stride = bytes_of(plane);
  for (const ByteColumn& c : plane) {
    gather_column(in.data(), blocks, block, c.offset, c.length, out, stride);
    out += c.length;
  }
}
void scatter(const std::vector<ByteColumn>& plane, const std::byte* in, std::size_t blocks,
             std::size_t block, MutableBytes out) {
  const std::size_t stride = bytes_of(plane);
  for (const ByteColumn& c : plane) {
    scatter_column(in, stride, blocks, block, c.offset, c.length, out.data());
    in += c.length;
  }
}
// Elements whose bytes are planes in order, which have quick kernels.
bool is_byte_planes(const Codec& codec) noexcept {
  if (codec.block != codec.columns.size()) return false;
  for (std::size_t i = 0; i < codec.columns.size(); ++i)
    if (codec.columns[i] != std::vector<ByteColumn>{{static_cast<std::uint16_t>(i), 1}})
      return false;
  return codec.block == 2 || codec.block == 4;
}
void split_bytes(std::size_t width, const std::byte* in, std::size_t n, std::byte* const* planes) {
  width == 2 ? split_bytes2(in, n, planes) : split_bytes4(in, n, planes);
}
void join_bytes(std::size_t width, const std::byte* const* planes, std::size_t n, std::byte* out) {
  width == 2 ? join_bytes2(planes, n, out) : join_bytes4(planes, n, out);
}

// Planes with a byte for each element, which floats are joined from piece by piece: those that are
// not coded can stay where they lie.
bool in_pieces(const Codec& codec, std::size_t plane) noexcept {
  return has_exponents(codec) && plane > 0 && plane + 1 < codec.planes();
}
// Returns how many escapes were wanted.
std::size_t join_floats(const Codec& codec, const std::byte* pairs,
                        const std::array<FrameView, kMostPlanes>& views, Bytes escapes,
                        std::uint8_t top, std::size_t n, std::byte* out) {
  constexpr std::size_t kPiece = FrameView::kPiece;
  std::size_t used = 0;
  for (std::size_t i = 0; i * kPiece < n; ++i) {
    const std::size_t count = std::min(kPiece, n - i * kPiece);
    const Bytes left = escapes.subspan(std::min(used, escapes.size()));
    const std::byte* const two = pairs + i * kPiece / 2;
    std::byte* const to = out + i * kPiece * codec.block;
    used += codec.kind == Codec::Kind::Bf16
                ? join_bf16(two, views[1].piece(i), left.data(), left.size(), count, top, to)
                : join_f32(two, views[1].piece(i), views[2].piece(i), views[3].piece(i),
                           left.data(), left.size(), count, top, to);
  }
  return used;
}

}  // namespace

std::string_view name_of(Codec::Kind kind) noexcept {
  return std::ranges::find(kKinds, kind, &KindName::kind)->name;
}
std::optional<Codec::Kind> parse_codec_kind(std::string_view name) noexcept {
  const auto* const it = std::ranges::find(kKinds, name, &KindName::name);
  return it == kKinds.end() ? std::nullopt : std::optional(it->kind);
}

std::uint16_t block_of(Codec::Kind kind) noexcept {
  switch (kind) {
    case Codec::Kind::Bf16:
    case Codec::Kind::Delta16: return 2;
    case Codec::Kind::F32:
    case Codec::Kind::Delta32: return 4;
    default: return 1;
  }
}

std::size_t Codec::planes() const noexcept {
  switch (kind) {
    case Kind::Plain: return 1;
    case Kind::Bf16: return 3;
    case Kind::F32: return 5;
    case Kind::Columns: return columns.size();
    case Kind::Delta16: return 2;
    case Kind::Delta32: return 4;
  }
  return 0;
}
std::uint64_t Codec::chunk_bytes() const noexcept {
  return kChunk / block * block;
}

std::optional<std::string> fault_in(const Codec& codec) {
  if (codec.kind != Codec::Kind::Columns) return std::nullopt;
  if (codec.block == 0 || codec.block > kMostBlock)
    return fmt::format("blocks of {} bytes, not 1 to {}", codec.block, kMostBlock);
  if (codec.columns.empty() || codec.columns.size() > kMostPlanes)
    return fmt::format("{} planes, not 1 to {}", codec.columns.size(), kMostPlanes);
  std::vector<bool> seen(codec.block);
  std::size_t bytes = 0;
  for (const auto& plane : codec.columns) {
    if (plane.empty()) return "a plane without columns";
    for (const ByteColumn& c : plane) {
      if (c.length == 0 || c.offset + c.length > codec.block)
        return fmt::format("a column of {} bytes at {} in a block of {}", c.length, c.offset,
                           codec.block);
      for (std::size_t i = c.offset; i < std::size_t{c.offset} + c.length; ++i) {
        if (seen[i]) return fmt::format("byte {} of the block is in two columns", i);
        seen[i] = true;
      }
      bytes += c.length;
    }
  }
  if (bytes != codec.block)
    return fmt::format("columns of {} bytes in a block of {}", bytes, codec.block);
  return std::nullopt;
}

// Fields of ggml's blocks: ggml-common.h.
Codec codec_for(DType dtype) {
  switch (dtype) {
    case DType::BF16: return {Codec::Kind::Bf16, 2};
    case DType::F32: return {Codec::Kind::F32, 4};
    case DType::C64: return {Codec::Kind::F32, 4};
    case DType::F16:
    case DType::I16:
    case DType::U16: return byte_planes(2);
    case DType::I32:
    case DType::U32: return byte_planes(4);
    case DType::F64:
    case DType::I64:
    case DType::U64:
    case DType::C128: return byte_planes(8);
    case DType::Q4_0: return block_codec(dtype, {0}, {{2, 16}});
    case DType::Q4_1: return block_codec(dtype, {0, 2}, {{4, 16}});
    case DType::Q5_0: return block_codec(dtype, {0}, {{2, 4}, {6, 16}});
    case DType::Q5_1: return block_codec(dtype, {0, 2}, {{4, 4}, {8, 16}});
    case DType::Q8_0: return block_codec(dtype, {0}, {{2, 32}});
    case DType::Q8_1: return block_codec(dtype, {0, 2}, {{4, 32}});
    case DType::Q2_K: return block_codec(dtype, {80, 82}, {{0, 16}, {16, 64}});
    case DType::Q3_K: return block_codec(dtype, {108}, {{96, 12}, {0, 32}, {32, 64}});
    case DType::Q4_K: return block_codec(dtype, {0, 2}, {{4, 12}, {16, 128}});
    case DType::Q5_K: return block_codec(dtype, {0, 2}, {{4, 12}, {16, 32}, {48, 128}});
    case DType::Q6_K: return block_codec(dtype, {208}, {{192, 16}, {128, 64}, {0, 128}});
    case DType::IQ4_NL: return block_codec(dtype, {0}, {{2, 16}});
    case DType::IQ4_XS: return block_codec(dtype, {0}, {{2, 6}, {8, 128}});
    case DType::IQ2_XXS: return block_codec(dtype, {0}, {{2, 64}});
    case DType::IQ3_XXS: return block_codec(dtype, {0}, {{2, 64}, {66, 32}});
    case DType::MXFP4: return columns(17, {{{0, 1}}, {{1, 16}}});
    default: return {};
  }
}

std::optional<Codec> delta_for(DType dtype) {
  switch (dtype) {
    case DType::BF16:
    case DType::F16: return Codec{Codec::Kind::Delta16, 2};
    case DType::F32: return Codec{Codec::Kind::Delta32, 4};
    default: return std::nullopt;
  }
}

void Packer::encode(const Codec& codec, Bytes chunk, Bytes base, const std::vector<Coder>& coders,
                    Buffer& out, std::vector<FrameSize>& sizes) {
  const auto [n, left] = measure(codec, chunk.size());
  const Bytes rest = chunk.last(left);
  out.reserve(out.size() + chunk.size() + chunk.size() / 16 + 4096);
  const auto put = [&](std::size_t plane, Bytes content) {
    sizes.push_back(frames_.append(coders[plane], content, out));
  };
  if (codec.kind == Codec::Kind::Plain) return put(0, chunk);

  Scratch::Frame memory(scratch_);
  const std::vector<std::size_t> plane_bytes = plane_sizes(codec, chunk.size());
  std::array<std::span<std::byte>, kMostPlanes> planes;
  std::array<std::byte*, kMostPlanes> at = {};
  for (std::size_t p = 0; p < plane_bytes.size(); ++p) {
    planes[p] = memory.take<std::byte>(plane_bytes[p]);
    at[p] = planes[p].data();
  }
  if (has_exponents(codec)) {
    const std::uint8_t top = choose_top(chunk, n, codec.block);
    const auto tail = memory.take<std::byte>(1 + n + left);
    tail[0] = static_cast<std::byte>(top);
    std::byte* const escapes = tail.data() + 1;
    const std::size_t escaped =
        codec.kind == Codec::Kind::Bf16
            ? split_bf16(chunk.data(), n, top, at[0], at[1], escapes)
            : split_f32(chunk.data(), n, top, at[0], at[1], at[2], at[3], escapes);
    std::ranges::copy(rest, escapes + escaped);
    for (std::size_t p = 0; p < plane_bytes.size(); ++p) put(p, planes[p]);
    return put(plane_bytes.size(), tail.first(1 + escaped + left));
  }
  if (codec.needs_base()) {
    const auto difference = memory.take<std::byte>(n * codec.block);
    codec.block == 2 ? subtract2(chunk.data(), base.data(), n, difference.data())
                     : subtract4(chunk.data(), base.data(), n, difference.data());
    split_bytes(codec.block, difference.data(), n, at.data());
  } else if (is_byte_planes(codec)) {
    split_bytes(codec.block, chunk.data(), n, at.data());
  } else {
    for (std::size_t p = 0; p < codec.columns.size(); ++p)
      gather(codec.columns[p], chunk, n, codec.block, at[p]);
  }
  std::ranges::copy(rest, planes[plane_bytes.size() - 1].end() - static_cast<std::ptrdiff_t>(left));
  for (std::size_t p = 0; p < plane_bytes.size(); ++p) put(p, planes[p]);
}

Unpacker::Fault Unpacker::decode(const Codec& codec, Bytes stored,
                                 std::span<const FrameSize> frames, Bytes base,
                                 FrameReader::Check check, MutableBytes chunk) {
  const auto [n, left] = measure(codec, chunk.size());
  std::vector<std::size_t> wanted = plane_sizes(codec, chunk.size());
  if (has_exponents(codec)) {  // 'rest': its first byte, and at most an escape an element
    const std::size_t rest = frames[wanted.size()].content;
    if (rest < 1 + left || rest > 1 + n + left)
      return {wanted.size(),
              fmt::format("holds {} bytes, not {} to {}", rest, 1 + left, 1 + n + left)};
    wanted.push_back(rest);
  }
  if (codec.kind == Codec::Kind::Plain && frames[0].content == chunk.size())
    return {0, frames_.decode(stored.first(frames[0].stored), chunk, check)};
  Scratch::Frame memory(scratch_);
  std::array<FrameView, kMostPlanes> views;
  std::array<MutableBytes, kMostPlanes> planes;
  for (std::size_t p = 0; p < wanted.size(); ++p) {
    if (frames[p].content != wanted[p])
      return {p, fmt::format("holds {} bytes, not {}", frames[p].content, wanted[p])};
    planes[p] = memory.take<std::byte>(wanted[p]);
    const Bytes frame = stored.first(frames[p].stored);
    std::string why = in_pieces(codec, p) ? frames_.decode(frame, planes[p], check, views[p])
                                          : frames_.decode(frame, planes[p], check);
    if (!why.empty()) return {p, std::move(why)};
    stored = stored.subspan(frames[p].stored);
  }
  const auto put_rest = [&](Bytes last) {
    std::ranges::copy(last.last(left), chunk.end() - static_cast<std::ptrdiff_t>(left));
  };
  if (has_exponents(codec)) {
    const Bytes tail = planes[wanted.size() - 1];
    const Bytes escapes = tail.subspan(1, tail.size() - 1 - left);
    const std::size_t used = join_floats(codec, planes[0].data(), views, escapes,
                                         static_cast<std::uint8_t>(tail[0]), n, chunk.data());
    if (used != escapes.size())
      return {wanted.size() - 1,
              fmt::format("has {} exponents, but the nibbles want {}", escapes.size(), used)};
    put_rest(tail);
    return {};
  }
  std::array<const std::byte*, kMostPlanes> at = {};
  for (std::size_t p = 0; p < wanted.size(); ++p) at[p] = planes[p].data();
  if (codec.needs_base()) {
    const auto difference = memory.take<std::byte>(n * codec.block);
    join_bytes(codec.block, at.data(), n, difference.data());
    codec.block == 2 ? add2(difference.data(), base.data(), n, chunk.data())
                     : add4(difference.data(), base.data(), n, chunk.data());
  } else if (is_byte_planes(codec)) {
    join_bytes(codec.block, at.data(), n, chunk.data());
  } else {
    for (std::size_t p = 0; p < codec.columns.size(); ++p)
      scatter(codec.columns[p], at[p], n, codec.block, chunk);
  }
  put_rest(planes[wanted.size() - 1]);
  return {};
}

}  // namespace wtool
