#include "lib/pack/frame.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <optional>
#include <vector>

#define ZSTD_STATIC_LINKING_ONLY  // sequences of our own, and memory that ends the process
#include <fmt/format.h>
#include <zstd.h>

#include "lib/base/error.h"
#include "lib/base/scratch.h"
#include "lib/numeric/kernels/planes.h"
#include "lib/pack/xxhash64.h"

namespace wtool {
namespace {

constexpr std::size_t kBlock = std::size_t{128} << 10;  // RFC 8878 3.1.1.2: the largest
constexpr std::uint32_t kMagic = 0xFD2FB528;            // 3.1.1
constexpr std::byte kHasChecksum{4};                    // 3.1.1.1.1, in the byte after it
// 3.1.1.1: one segment, a size of four bytes, a checksum.
constexpr std::array<std::byte, 5> kHead{std::byte{0x28}, std::byte{0xB5}, std::byte{0x2F},
                                         std::byte{0xFD}, std::byte{0xA4}};
constexpr std::size_t kDescriptor = 4;  // its place in a frame
enum class Block : std::uint8_t { Raw = 0, Repeated = 1 };

void* take(void*, std::size_t n) {
  return ::operator new(n);
}
void give_back(void*, void* p) {
  ::operator delete(p);
}
constexpr ZSTD_customMem kMemory{&take, &give_back, nullptr};

std::size_t sound(std::size_t result) {
  if (ZSTD_isError(result))
    throw Error(Fault::Internal, fmt::format("zstd: {}", ZSTD_getErrorName(result)));
  return result;
}

constexpr std::size_t raw_size(std::size_t n) noexcept {
  return kHead.size() + 4 + 3 * std::max<std::size_t>(1, ceil_div(n, kBlock)) + n + 4;
}

// All of a frame of such blocks but its content and its checksum.
void put_heads(Block type, std::size_t bytes, MutableBytes frame) {
  std::ranges::copy(kHead, frame.begin());
  store(frame.subspan(kHead.size()), static_cast<std::uint32_t>(bytes));
  std::size_t at = kHead.size() + 4, done = 0;
  do {
    const std::size_t n = std::min(kBlock, bytes - done);
    done += n;
    const auto head =
        static_cast<std::uint32_t>(n << 3 | static_cast<unsigned>(type) << 1 | (done == bytes));
    std::memcpy(&frame[at], &head, 3);
    at += 3 + (type == Block::Raw ? n : 1);
  } while (done < bytes);
}
constexpr std::size_t repeated_size(std::size_t n) noexcept {
  return kHead.size() + 4 + 4 * ceil_div(n, kBlock) + 4;
}

std::uint32_t checksum_of_equal(std::byte value, std::size_t n) {
  static const std::vector<std::byte> zeros(kBlock);
  const std::vector<std::byte> others(value == std::byte{0} ? 0 : std::min(n, kBlock), value);
  const Bytes block = value == std::byte{0} ? zeros : others;
  XxHash64 sum;
  for (std::size_t at = 0; at < n; at += kBlock) sum.update(block.first(std::min(kBlock, n - at)));
  return sum.low();
}

constexpr std::size_t kMostTiny = 32;  // nothing is gained by coding less

// Frames without compression, written by hand: zstd gives no such frame of what it can compress.
FrameSize append_raw(Bytes content, Buffer& out) {
  RawFrame frame(content.size(), out);
  for (std::size_t i = 0; i * kBlock < content.size(); ++i) {
    const Bytes piece = content.subspan(i * kBlock);
    std::ranges::copy(piece.first(std::min(kBlock, piece.size())), frame.piece(i));
    frame.filled(i);
  }
  return frame.finish();
}
}  // namespace

std::string_view name_of(Coder coder) noexcept {
  switch (coder) {
    case Coder::Raw: return "raw";
    case Coder::Huffman: return "huffman";
    case Coder::Fast: return "zstd-1";
    case Coder::Strong: return "zstd-3";
  }
  return "";
}

struct FrameWriter::State {
  struct Free {
    void operator()(ZSTD_CCtx* c) const noexcept { ZSTD_freeCCtx(c); }
  };
  std::unique_ptr<ZSTD_CCtx, Free> context{ZSTD_createCCtx_advanced(kMemory)};
  std::vector<ZSTD_Sequence> sequences;
  Scratch scratch;

  void set(ZSTD_cParameter parameter, int value) {
    sound(ZSTD_CCtx_setParameter(context.get(), parameter, value));
  }
  // Checksums are ours: quicker, and the table wants them anyway.
  void prepare(int level) {
    sound(ZSTD_CCtx_reset(context.get(), ZSTD_reset_session_and_parameters));
    set(ZSTD_c_compressionLevel, level);
    set(ZSTD_c_checksumFlag, 0);
    set(ZSTD_c_contentSizeFlag, 1);
  }
  std::size_t compress(int level, Bytes content, MutableBytes out) {
    prepare(level);
    return ZSTD_compress2(context.get(), out.data(), out.size(), content.data(), content.size());
  }
  // One sequence a block, of literals only.
  std::size_t huffman(Bytes content, MutableBytes out) {
    prepare(1);
    set(ZSTD_c_blockDelimiters, ZSTD_sf_explicitBlockDelimiters);
    set(ZSTD_c_literalCompressionMode, ZSTD_ps_enable);
    sequences.clear();
    for (std::size_t at = 0; at < content.size(); at += kBlock)
      sequences.push_back({0, static_cast<unsigned>(std::min(kBlock, content.size() - at)), 0, 0});
    return ZSTD_compressSequences(context.get(), out.data(), out.size(), sequences.data(),
                                  sequences.size(), content.data(), content.size());
  }
};

FrameWriter::FrameWriter() : state_(std::make_unique<State>()) {}
FrameWriter::~FrameWriter() = default;
FrameWriter::FrameWriter(FrameWriter&&) noexcept = default;
FrameWriter& FrameWriter::operator=(FrameWriter&&) noexcept = default;

FrameSize FrameWriter::append(Coder coder, Bytes content, Buffer& out) {
  if (content.size() > kMostFrameBytes)
    throw Error(Fault::Internal, fmt::format("a frame of {} bytes", content.size()));
  if (coder == Coder::Raw || content.size() <= kMostTiny ||
      all_equal(content.data(), content.size()))
    return append_raw(content, out);
  Scratch::Frame memory(state_->scratch);
  const auto room = memory.take<std::byte>(ZSTD_compressBound(content.size()));
  const std::size_t n = sound(coder == Coder::Huffman
                                  ? state_->huffman(content, room)
                                  : state_->compress(coder == Coder::Fast ? 1 : 3, content, room));
  if (n + 4 >= raw_size(content.size())) return append_raw(content, out);
  room[kDescriptor] |= kHasChecksum;
  const std::uint32_t checksum = checksum_of(content);
  wtool::append(out, room.first(n));
  wtool::append(out, checksum);
  return {static_cast<std::uint32_t>(n + 4), static_cast<std::uint32_t>(content.size()), checksum};
}

struct FrameReader::State {
  struct Free {
    void operator()(ZSTD_DCtx* c) const noexcept { ZSTD_freeDCtx(c); }
  };
  std::unique_ptr<ZSTD_DCtx, Free> context{ZSTD_createDCtx_advanced(kMemory)};
};

RawFrame::RawFrame(std::size_t bytes, Buffer& out) : bytes_(bytes), at_(out.size()), out_(&out) {
  out.resize(at_ + raw_size(bytes));
  put_heads(Block::Raw, bytes, MutableBytes(out).subspan(at_));
}
std::byte* RawFrame::piece(std::size_t i) noexcept {
  return out_->data() + at_ + kHead.size() + 4 + 3 + i * (kBlock + 3);
}
void RawFrame::filled(std::size_t i) {
  const auto size = [&](std::size_t k) { return std::min(kBlock, bytes_ - k * kBlock); };
  if (equal_ == i && *piece(i) == *piece(0) && all_equal(piece(i), size(i))) {
    ++equal_;
    return;
  }
  if (equal_ == i)  // they were not all: make up for it
    for (std::size_t k = 0; k < i; ++k) checksum_.update({piece(k), size(k)});
  equal_ = kNoMore;
  checksum_.update({piece(i), size(i)});
}
FrameSize RawFrame::finish() {
  const std::size_t stored = raw_size(bytes_), pieces = ceil_div(bytes_, kBlock);
  const auto content = static_cast<std::uint32_t>(bytes_);
  const bool equal = equal_ == pieces;
  std::uint32_t checksum = 0;
  if (equal && bytes_ > 0)
    checksum = checksum_of_equal(*piece(0), bytes_);
  else
    checksum = checksum_.low();
  if (!equal || bytes_ <= kMostTiny) {
    store(MutableBytes(*out_).subspan(at_ + stored - 4), checksum);
    return {static_cast<std::uint32_t>(stored), content, checksum};
  }
  const std::byte value = *piece(0);
  const std::size_t size = repeated_size(bytes_);
  const MutableBytes frame = MutableBytes(*out_).subspan(at_, size);
  put_heads(Block::Repeated, bytes_, frame);
  for (std::size_t k = 0; k < pieces; ++k) frame[kHead.size() + 4 + 3 + 4 * k] = value;
  store(frame.subspan(size - 4), checksum);
  const auto begin = out_->begin() + static_cast<std::ptrdiff_t>(at_);
  out_->erase(begin + static_cast<std::ptrdiff_t>(size),
              begin + static_cast<std::ptrdiff_t>(stored));
  return {static_cast<std::uint32_t>(size), content, checksum};
}

FrameReader::FrameReader() : state_(std::make_unique<State>()) {}
FrameReader::~FrameReader() = default;
FrameReader::FrameReader(FrameReader&&) noexcept = default;
FrameReader& FrameReader::operator=(FrameReader&&) noexcept = default;

std::string FrameReader::decode(Bytes frame, MutableBytes out, Check check) {
  ZSTD_DCtx* const context = state_->context.get();
  sound(ZSTD_DCtx_setParameter(
      context, ZSTD_d_forceIgnoreChecksum,
      check == Check::Trust ? ZSTD_d_ignoreChecksum : ZSTD_d_validateChecksum));
  // One frame and nothing else: libzstd would pass over those that can be skipped, read the forms
  // of before the standard, and go on with a second one.
  if (frame.size() < kHead.size() || load<std::uint32_t>(frame) != kMagic)
    return "it does not begin as a frame";
  if (check == Check::Checksum && !stored_checksum(frame)) return "it has no checksum";
  const std::size_t length = ZSTD_findFrameCompressedSize(frame.data(), frame.size());
  if (ZSTD_isError(length)) return ZSTD_getErrorName(length);
  if (length != frame.size())
    return fmt::format("the frame ends after {} of {} bytes", length, frame.size());
  const std::size_t n =
      ZSTD_decompressDCtx(context, out.data(), out.size(), frame.data(), frame.size());
  if (ZSTD_isError(n)) return ZSTD_getErrorName(n);
  if (n != out.size()) return fmt::format("holds {} bytes, not {}", n, out.size());
  return {};
}

namespace {

// Where the content of a frame that append_raw() could have written begins, if it is one of `size`
// bytes.
std::optional<FrameView> view_raw(Bytes frame, std::size_t size) {
  if (size == 0 || frame.size() != raw_size(size) ||
      !std::ranges::equal(frame.first(kHead.size()), kHead) ||
      load<std::uint32_t>(frame.subspan(kHead.size())) != size)
    return std::nullopt;
  std::size_t at = kHead.size() + 4;
  for (std::size_t done = 0; done < size; done += kBlock) {
    const std::size_t n = std::min(kBlock, size - done);
    std::uint32_t head = 0;
    std::memcpy(&head, &frame[at], 3);
    if (head != (n << 3 | (done + n == size))) return std::nullopt;
    at += 3 + n;
  }
  return FrameView{&frame[kHead.size() + 4 + 3], 3};
}

std::uint32_t checksum_of(const FrameView& view, std::size_t size) {
  XxHash64 sum;
  for (std::size_t i = 0; i * kBlock < size; ++i)
    sum.update({view.piece(i), std::min(kBlock, size - i * kBlock)});
  return sum.low();
}

}  // namespace

std::string FrameReader::decode(Bytes frame, MutableBytes room, Check check, FrameView& view) {
  static_assert(FrameView::kPiece == kBlock);
  if (const auto raw = view_raw(frame, room.size())) {
    view = *raw;
    if (check == Check::Trust ||
        checksum_of(view, room.size()) == load<std::uint32_t>(frame.last(4)))
      return {};
    return "the checksum does not match";
  }
  view = {room.data(), 0};
  return decode(frame, room, check);
}

void append_raw_frame(Bytes content, Buffer& out) {
  append_raw(content, out);
}
FrameSize raw_frame_size(Bytes frame) {
  return {static_cast<std::uint32_t>(frame.size()), load<std::uint32_t>(frame.subspan(5)),
          load<std::uint32_t>(frame.last(4))};
}

std::optional<std::uint32_t> stored_checksum(Bytes frame) noexcept {
  if (frame.size() <= kDescriptor + 4 || (frame[kDescriptor] & kHasChecksum) == std::byte{})
    return std::nullopt;
  return load<std::uint32_t>(frame.last(4));
}

void append_skippable(unsigned kind, Bytes content, Buffer& out) {
  append(out, skippable_magic(kind));
  append(out, static_cast<std::uint32_t>(content.size()));
  append(out, content);
}

bool begins_as_zstd(Bytes first) noexcept {
  if (first.size() < 4) return false;
  const auto magic = load<std::uint32_t>(first);
  return magic == kMagic || (magic & ~0xFu) == skippable_magic(0);
}

std::string zstd_version() {
  return ZSTD_versionString();
}

}  // namespace wtool
