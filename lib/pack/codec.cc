#include "lib/pack/codec.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/numeric/kernels/differences.h"
#include "lib/numeric/kernels/planes.h"

namespace wtool {
namespace {

constexpr std::uint64_t kChunk = std::uint64_t{1} << 20;

struct KindName {
  PackCodec::Kind kind;
  std::string_view name;
};
constexpr std::array kKinds{
    KindName{PackCodec::Kind::Plain, "bytes"},     KindName{PackCodec::Kind::Bf16, "bf16"},
    KindName{PackCodec::Kind::F32, "f32"},         KindName{PackCodec::Kind::Columns, "columns"},
    KindName{PackCodec::Kind::Delta16, "delta16"}, KindName{PackCodec::Kind::Delta32, "delta32"}};

PackCodec columns(std::uint16_t block, std::vector<std::vector<ByteColumn>> planes) {
  return {PackCodec::Kind::Columns, block, std::move(planes)};
}
// Blocks with `scales` f16 numbers at the places given: their high bytes, their low bytes, then the
// other columns, one plane each.
PackCodec block_codec(DType dtype, std::initializer_list<std::uint16_t> scales,
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
PackCodec byte_planes(std::uint16_t width) {
  std::vector<std::vector<ByteColumn>> planes;
  for (std::uint16_t i = 0; i < width; ++i) planes.push_back({{i, 1}});
  return columns(width, std::move(planes));
}

// How one chunk lies in its planes.
struct Measure {
  std::size_t elements = 0, rest = 0;  // whole blocks, and bytes after them
};
Measure measure(const PackCodec& codec, std::size_t bytes) noexcept {
  return {bytes / codec.block, bytes % codec.block};
}
std::size_t bytes_of(const std::vector<ByteColumn>& plane) noexcept {
  std::size_t sum = 0;
  for (const ByteColumn& c : plane) sum += c.length;
  return sum;
}
// Elements whose bytes are planes in order, which have quick kernels.
bool is_byte_planes(const PackCodec& codec) noexcept {
  if (codec.block != codec.columns.size()) return false;
  for (std::size_t i = 0; i < codec.columns.size(); ++i)
    if (codec.columns[i] != std::vector<ByteColumn>{{static_cast<std::uint16_t>(i), 1}})
      return false;
  return codec.block == 2 || codec.block == 4;
}
// How many planes, the first ones, have a byte for each element.
std::size_t flat_planes(const PackCodec& codec) noexcept {
  switch (codec.kind) {
    case PackCodec::Kind::Plain: return 0;
    case PackCodec::Kind::Bf16:
    case PackCodec::Kind::Delta16: return 1;
    case PackCodec::Kind::F32:
    case PackCodec::Kind::Delta32: return 3;
    case PackCodec::Kind::Columns: return is_byte_planes(codec) ? codec.block : 0;
  }
  return 0;
}
bool has_exponents(const PackCodec& codec) noexcept {
  return codec.kind == PackCodec::Kind::Bf16 || codec.kind == PackCodec::Kind::F32;
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

// Blocks that all columns of are moved before the next ones, so that they stay in the caches.
constexpr std::size_t kTile = 256;

void gather(const PackCodec& codec, Bytes in, std::size_t blocks,
            const std::array<std::byte*, kMostPlanes>& planes) {
  for (std::size_t first = 0; first < blocks; first += kTile) {
    const std::size_t n = std::min(kTile, blocks - first);
    const std::byte* const from = in.data() + first * codec.block;
    for (std::size_t p = 0; p < codec.columns.size(); ++p) {
      const std::size_t stride = bytes_of(codec.columns[p]);
      std::byte* to = planes[p] + first * stride;
      for (const ByteColumn& c : codec.columns[p]) {
        gather_column(from, n, codec.block, c.offset, c.length, to, stride);
        to += c.length;
      }
    }
  }
}
void scatter(const PackCodec& codec, const std::array<const std::byte*, kMostPlanes>& planes,
             std::size_t blocks, MutableBytes out) {
  for (std::size_t first = 0; first < blocks; first += kTile) {
    const std::size_t n = std::min(kTile, blocks - first);
    std::byte* const to = out.data() + first * codec.block;
    for (std::size_t p = 0; p < codec.columns.size(); ++p) {
      const std::size_t stride = bytes_of(codec.columns[p]);
      const std::byte* from = planes[p] + first * stride;
      for (const ByteColumn& c : codec.columns[p]) {
        scatter_column(from, stride, n, codec.block, c.offset, c.length, to);
        from += c.length;
      }
    }
  }
}

using Pointers = std::array<std::byte*, kMostPlanes>;
using ConstPointers = std::array<const std::byte*, kMostPlanes>;

// What becomes of elements beside the planes that have a byte for each: nibbles, and lists whose
// first `used` bytes are filled.
struct Extra {
  std::uint8_t top = 0;
  std::byte *pairs = nullptr, *list = nullptr, *list2 = nullptr;
  std::size_t used = 0;
};
struct ConstExtra {
  std::uint8_t top = 0;
  const std::byte* pairs = nullptr;
  Bytes list = {}, list2 = {};
  std::size_t used = 0;
};

// Elements [first, first + n), of which `in` and `base` point to the first and `to` says where the
// flat planes go.
void split(const PackCodec& codec, const std::byte* in, const std::byte* base, std::size_t first,
           std::size_t n, const Pointers& to, Extra& x) {
  switch (codec.kind) {
    case PackCodec::Kind::Bf16:
      x.used += split_bf16(in, n, x.top, x.pairs + first / 2, to[0], x.list + x.used);
      break;
    case PackCodec::Kind::F32:
      x.used += split_f32(in, n, x.top, x.pairs + first / 2, to[2], to[1], to[0], x.list + x.used);
      break;
    case PackCodec::Kind::Delta16:
      x.used += split_delta16(in, base, n, to[0], x.list + x.used, x.list2 + x.used);
      break;
    case PackCodec::Kind::Delta32:
      x.used += split_delta32(in, base, n, to[0], to[1], to[2], x.list + x.used, x.list2 + x.used);
      break;
    default: codec.block == 2 ? split_bytes2(in, n, to.data()) : split_bytes4(in, n, to.data());
  }
}
void join(const PackCodec& codec, const ConstPointers& from, const std::byte* base,
          std::size_t first, std::size_t n, ConstExtra& x, std::byte* out) {
  const Bytes list = x.list.subspan(std::min(x.used, x.list.size()));
  const Bytes list2 = x.list2.subspan(std::min(x.used, x.list2.size()));
  switch (codec.kind) {
    case PackCodec::Kind::Bf16:
      x.used += join_bf16(x.pairs + first / 2, from[0], list.data(), list.size(), n, x.top, out);
      break;
    case PackCodec::Kind::F32:
      x.used += join_f32(x.pairs + first / 2, from[2], from[1], from[0], list.data(), list.size(),
                         n, x.top, out);
      break;
    case PackCodec::Kind::Delta16:
      x.used += join_delta16(from[0], list.data(), list2.data(), list.size(), base, n, out);
      break;
    case PackCodec::Kind::Delta32:
      x.used += join_delta32(from[0], from[1], from[2], list.data(), list2.data(), list.size(),
                             base, n, out);
      break;
    default: codec.block == 2 ? join_bytes2(from.data(), n, out) : join_bytes4(from.data(), n, out);
  }
}

}  // namespace

std::string_view name_of(PackCodec::Kind kind) noexcept {
  return std::ranges::find(kKinds, kind, &KindName::kind)->name;
}
std::optional<PackCodec::Kind> parse_codec_kind(std::string_view name) noexcept {
  const auto* const it = std::ranges::find(kKinds, name, &KindName::name);
  return it == kKinds.end() ? std::nullopt : std::optional(it->kind);
}

std::uint16_t block_of(PackCodec::Kind kind) noexcept {
  switch (kind) {
    case PackCodec::Kind::Bf16:
    case PackCodec::Kind::Delta16: return 2;
    case PackCodec::Kind::F32:
    case PackCodec::Kind::Delta32: return 4;
    default: return 1;
  }
}

std::size_t PackCodec::planes() const noexcept {
  switch (kind) {
    case Kind::Plain: return 1;
    case Kind::Bf16: return 3;
    case Kind::F32: return 5;
    case Kind::Columns: return columns.size();
    case Kind::Delta16: return 3;
    case Kind::Delta32: return 5;
  }
  return 0;
}
std::uint64_t PackCodec::chunk_bytes() const noexcept {
  return kChunk / block * block;
}

std::optional<std::string> fault_in(const PackCodec& codec) {
  if (codec.kind != PackCodec::Kind::Columns) return std::nullopt;
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
PackCodec codec_for(DType dtype) {
  switch (dtype) {
    case DType::BF16: return {PackCodec::Kind::Bf16, 2};
    case DType::F32:
    case DType::C64: return {PackCodec::Kind::F32, 4};
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

std::optional<PackCodec> delta_for(DType dtype) {
  switch (dtype) {
    case DType::BF16:
    case DType::F16: return PackCodec{PackCodec::Kind::Delta16, 2};
    case DType::F32: return PackCodec{PackCodec::Kind::Delta32, 4};
    default: return std::nullopt;
  }
}

void Packer::encode(const PackCodec& codec, Bytes chunk, Bytes base,
                    const std::vector<Coder>& coders, Buffer& out, std::vector<FrameSize>& sizes) {
  out.reserve(out.size() + chunk.size() + chunk.size() / 16 + 4096);
  const auto put = [&](std::size_t plane, Bytes content) {
    sizes.push_back(frames_.append(coders[plane], content, out));
  };
  if (codec.kind == PackCodec::Kind::Plain) return put(0, chunk);
  if (flat_planes(codec) > 0) return encode_flat(codec, chunk, base, coders, out, sizes);
  const auto [n, left] = measure(codec, chunk.size());
  Scratch::Frame memory(scratch_);
  std::array<std::span<std::byte>, kMostPlanes> planes;
  Pointers to = {};
  const std::size_t count = codec.columns.size();
  for (std::size_t p = 0; p < count; ++p) {
    planes[p] = memory.take<std::byte>(n * bytes_of(codec.columns[p]) + (p + 1 < count ? 0 : left));
    to[p] = planes[p].data();
  }
  gather(codec, chunk, n, to);
  std::ranges::copy(chunk.last(left), planes[count - 1].last(left).begin());
  for (std::size_t p = 0; p < count; ++p) put(p, planes[p]);
}

// Piece by piece, so that what is taken apart is still in the caches when its checksum is made.
void Packer::encode_flat(const PackCodec& codec, Bytes chunk, Bytes base,
                         const std::vector<Coder>& coders, Buffer& out,
                         std::vector<FrameSize>& sizes) {
  constexpr std::size_t kPiece = FrameView::kPiece;
  const auto [n, left] = measure(codec, chunk.size());
  const std::size_t flat = flat_planes(codec);
  const bool all_flat = flat == codec.planes();
  Scratch::Frame memory(scratch_);
  // Those before the first one that is coded are written where they will stay.
  std::vector<RawFrame> raw;
  while (raw.size() < flat - all_flat && coders[raw.size()] == Coder::Raw) raw.emplace_back(n, out);
  std::array<std::span<std::byte>, kMostPlanes> planes;
  for (std::size_t p = raw.size(); p < flat; ++p) planes[p] = memory.take<std::byte>(n + left);
  Extra extra;
  const auto pairs = memory.take<std::byte>(has_exponents(codec) ? ceil_div(n, 2) : 0);
  const auto list = memory.take<std::byte>(all_flat ? 0 : 1 + n + left);
  const auto list2 = memory.take<std::byte>(codec.needs_base() ? n + left : 0);
  if (has_exponents(codec)) {
    extra.top = choose_top(chunk, n, codec.block);
    extra.pairs = pairs.data();
    list[0] = static_cast<std::byte>(extra.top);
  }
  extra.list = list.data() + has_exponents(codec);
  extra.list2 = list2.data();
  for (std::size_t i = 0; i * kPiece < n; ++i) {
    Pointers to = {};
    for (std::size_t p = 0; p < flat; ++p)
      to[p] = p < raw.size() ? raw[p].piece(i) : planes[p].data() + i * kPiece;
    const std::size_t at = i * kPiece * codec.block;
    split(codec, chunk.data() + at, base.empty() ? nullptr : base.data() + at, i * kPiece,
          std::min(kPiece, n - i * kPiece), to, extra);
    for (RawFrame& frame : raw) frame.filled(i);
  }

  const std::size_t first = sizes.size();
  sizes.resize(first + raw.size());
  for (std::size_t p = raw.size(); p-- > 0;) sizes[first + p] = raw[p].finish();
  const auto put = [&](std::size_t plane, Bytes content) {
    sizes.push_back(frames_.append(coders[plane], content, out));
  };
  const Bytes rest = chunk.last(left);
  for (std::size_t p = raw.size(); p < flat - all_flat; ++p) put(p, planes[p].first(n));
  if (all_flat) {
    std::ranges::copy(rest, planes[flat - 1].begin() + static_cast<std::ptrdiff_t>(n));
    put(flat - 1, planes[flat - 1]);
  } else if (has_exponents(codec)) {
    std::ranges::copy(rest, extra.list + extra.used);
    put(flat, pairs);
    put(flat + 1, list.first(1 + extra.used + left));
  } else {
    std::ranges::copy(rest, extra.list2 + extra.used);
    put(flat, list.first(extra.used));
    put(flat + 1, list2.first(extra.used + left));
  }
}

namespace {

// The content sizes that a chunk's frames must have, or what is wrong with those they have. Lists
// have at most an entry for each element.
Unpacker::Fault check_sizes(const PackCodec& codec, std::span<const FrameSize> frames,
                            std::size_t n, std::size_t left) {
  const auto wrong = [&](std::size_t p, std::size_t least, std::size_t most) {
    const std::size_t got = frames[p].content;
    if (got >= least && got <= most) return Unpacker::Fault{};
    return Unpacker::Fault{p, least == most
                                  ? fmt::format("holds {} bytes, not {}", got, least)
                                  : fmt::format("holds {} bytes, not {} to {}", got, least, most)};
  };
  const std::size_t flat = flat_planes(codec);
  const bool all_flat = flat == codec.planes();
  for (std::size_t p = 0; p < flat; ++p) {
    const std::size_t bytes = n + (all_flat && p + 1 == flat ? left : 0);
    if (auto fault = wrong(p, bytes, bytes)) return fault;
  }
  if (all_flat) return {};
  if (has_exponents(codec)) {
    if (auto fault = wrong(flat, ceil_div(n, 2), ceil_div(n, 2))) return fault;
    return wrong(flat + 1, 1 + left, 1 + n + left);
  }
  if (auto fault = wrong(flat, 0, n)) return fault;
  const std::size_t far = frames[flat].content + left;
  return wrong(flat + 1, far, far);
}

}  // namespace

Unpacker::Fault Unpacker::decode(const PackCodec& codec, Bytes stored,
                                 std::span<const FrameSize> frames, Bytes base,
                                 FrameReader::Check check, MutableBytes chunk) {
  if (flat_planes(codec) > 0) return decode_flat(codec, stored, frames, base, check, chunk);
  const auto next = [&](std::size_t p, MutableBytes to) -> std::string {
    if (frames[p].content != to.size())
      return fmt::format("holds {} bytes, not {}", frames[p].content, to.size());
    const Bytes frame = stored.first(frames[p].stored);
    stored = stored.subspan(frame.size());
    return frames_.decode(frame, to, check);
  };
  if (codec.kind == PackCodec::Kind::Plain) return {0, next(0, chunk)};
  const auto [n, left] = measure(codec, chunk.size());
  Scratch::Frame memory(scratch_);
  std::array<MutableBytes, kMostPlanes> planes;
  ConstPointers from = {};
  const std::size_t count = codec.columns.size();
  for (std::size_t p = 0; p < count; ++p) {
    planes[p] = memory.take<std::byte>(n * bytes_of(codec.columns[p]) + (p + 1 < count ? 0 : left));
    from[p] = planes[p].data();
    if (std::string why = next(p, planes[p]); !why.empty()) return {p, std::move(why)};
  }
  scatter(codec, from, n, chunk);
  std::ranges::copy(planes[count - 1].last(left), chunk.last(left).begin());
  return {};
}

// Piece by piece: planes that are not coded stay where they lie.
Unpacker::Fault Unpacker::decode_flat(const PackCodec& codec, Bytes stored,
                                      std::span<const FrameSize> frames, Bytes base,
                                      FrameReader::Check check, MutableBytes chunk) {
  constexpr std::size_t kPiece = FrameView::kPiece;
  const auto [n, left] = measure(codec, chunk.size());
  if (auto fault = check_sizes(codec, frames, n, left)) return fault;
  const std::size_t flat = flat_planes(codec), count = codec.planes();
  Scratch::Frame memory(scratch_);
  std::array<FrameView, kMostPlanes> views;
  std::array<MutableBytes, kMostPlanes> planes;
  for (std::size_t p = 0; p < count; ++p) {
    planes[p] = memory.take<std::byte>(frames[p].content);
    const Bytes frame = stored.first(frames[p].stored);
    stored = stored.subspan(frame.size());
    const bool stays = p < flat && p + 1 < count;
    views[p] = {planes[p].data(), 0};
    std::string why = stays ? frames_.decode(frame, planes[p], check, views[p])
                            : frames_.decode(frame, planes[p], check);
    if (!why.empty()) return {p, std::move(why)};
  }
  const Bytes last = planes[count - 1];
  ConstExtra extra;
  if (has_exponents(codec)) {
    extra.top = static_cast<std::uint8_t>(last[0]);
    extra.pairs = planes[flat].data();
    extra.list = last.subspan(1, last.size() - 1 - left);
  } else if (codec.needs_base()) {
    extra.list = planes[flat];
    extra.list2 = last;
  }
  for (std::size_t i = 0; i * kPiece < n; ++i) {
    ConstPointers from = {};
    for (std::size_t p = 0; p < flat; ++p) from[p] = views[p].piece(i);
    const std::size_t at = i * kPiece * codec.block;
    join(codec, from, base.empty() ? nullptr : base.data() + at, i * kPiece,
         std::min(kPiece, n - i * kPiece), extra, chunk.data() + at);
  }
  if (extra.used != extra.list.size())
    return {count - 1,
            fmt::format("lists {} elements, but {} want one", extra.list.size(), extra.used)};
  std::ranges::copy(last.last(left), chunk.end() - static_cast<std::ptrdiff_t>(left));
  return {};
}

}  // namespace wtool
