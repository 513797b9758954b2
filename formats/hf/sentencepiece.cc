#include "formats/hf/sentencepiece.h"

#include <cmath>

#include <fmt/format.h>

#include "formats/hf/tokenizer_table.h"
#include "formats/registry.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

// Protobuf's wire format: fields, each a number and a type, then a varint, 4 or 8 bytes, or a
// length and so many bytes. Every step is checked against the message's end.
class Message {
 public:
  enum class Wire : std::uint8_t { Varint, Fixed64, Bytes, Fixed32 = 5 };
  struct Field {
    std::uint64_t number;
    Wire wire;
    std::uint64_t value;  // of a varint; the bits of what is fixed
    Bytes bytes;
    std::size_t at;  // in the file
  };

  Message(Bytes bytes, std::size_t place) : bytes_(bytes), place_(place) {}

  bool next(Field& f) {
    if (at_ == bytes_.size()) return false;
    f.at = place_ + at_;
    const std::uint64_t tag = varint("a field");
    f = {tag >> 3, static_cast<Wire>(tag & 7), 0, {}, f.at};
    switch (f.wire) {
      case Wire::Varint: f.value = varint("a number"); return true;
      case Wire::Fixed64: f.value = load<std::uint64_t>(take(8, "8 bytes")); return true;
      case Wire::Fixed32: f.value = load<std::uint32_t>(take(4, "4 bytes")); return true;
      case Wire::Bytes:
        f.bytes = take(varint("a length"), "what a length announces");
        f.at = place_ + at_ - f.bytes.size();
        return true;
    }
    throw Error(Fault::BadFile, fmt::format("byte {}: wire type {} is none of protobuf's", f.at,
                                            static_cast<unsigned>(f.wire)));
  }

 private:
  std::uint64_t varint(std::string_view what) {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = std::to_integer<std::uint64_t>(take(1, what)[0]);
      value |= (byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    throw Error(Fault::BadFile,
                fmt::format("byte {}: a number of more than 64 bits", place_ + at_));
  }
  Bytes take(std::uint64_t n, std::string_view what) {
    if (n > bytes_.size() - at_)
      throw Error(Fault::BadFile, fmt::format("byte {}: {} needs {} bytes, but {} are left",
                                              place_ + at_, what, n, bytes_.size() - at_));
    const Bytes out = bytes_.subspan(at_, static_cast<std::size_t>(n));
    at_ += out.size();
    return out;
  }

  Bytes bytes_;
  std::size_t place_, at_ = 0;
};

Error piece_error(std::size_t id, std::string_view what) {
  return Error(Fault::BadFile, fmt::format("piece {}: {}", id, what));
}

SentencePieceModel::Piece piece_of(Bytes bytes, std::size_t at, std::size_t id) {
  SentencePieceModel::Piece piece;
  Message in(bytes, at);
  for (Message::Field f; in.next(f);) {
    if (f.number == 1 && f.wire == Message::Wire::Bytes) {
      piece.text = as_text(f.bytes);
    } else if (f.number == 2 && f.wire == Message::Wire::Fixed32) {
      const auto bits = static_cast<std::uint32_t>(f.value);
      piece.score = load<float>(std::as_bytes(std::span(&bits, 1)));
    } else if (f.number == 3 && f.wire == Message::Wire::Varint) {
      if (f.value < 1 || f.value > 6)
        throw piece_error(id, fmt::format("type {} is none of 1 … 6", f.value));
      piece.type = static_cast<SentencePieceModel::Type>(f.value);
    }
  }
  if (piece.text.size() > kMaxTokenBytes)
    throw piece_error(id, fmt::format("a text of {} bytes, wtool's limit is {}", piece.text.size(),
                                      kMaxTokenBytes));
  if (!is_utf8(piece.text)) throw piece_error(id, "its text is not UTF-8");
  if (!std::isfinite(piece.score)) throw piece_error(id, "its score is not finite");
  return piece;
}

void read_trainer(Bytes bytes, std::size_t at, SentencePieceModel& out) {
  Message in(bytes, at);
  for (Message::Field f; in.next(f);)
    if (f.number == 3 && f.wire == Message::Wire::Varint) {
      if (f.value < 1 || f.value > 4)
        throw Error(Fault::BadFile, fmt::format("model type {} is none of 1 … 4", f.value));
      out.kind = static_cast<SentencePieceModel::Kind>(f.value);
    }
}

void read_normalizer(Bytes bytes, std::size_t at, SentencePieceModel& out) {
  Message in(bytes, at);
  for (Message::Field f; in.next(f);) {
    if (f.number == 2 && f.wire == Message::Wire::Bytes) out.charsmap = as_text(f.bytes);
    if (f.wire != Message::Wire::Varint) continue;
    if (f.number == 3) out.add_dummy_prefix = f.value != 0;
    if (f.number == 4) out.remove_extra_whitespaces = f.value != 0;
  }
}

void read_model(SentencePieceModel& out) {
  Message in(out.bytes, 0);
  for (Message::Field f; in.next(f);) {
    if (f.wire != Message::Wire::Bytes) continue;
    if (f.number == 1) {
      if (out.pieces.size() == kMaxTokens)
        throw Error(Fault::BadFile, fmt::format("more than {} pieces, wtool's limit", kMaxTokens));
      out.pieces.push_back(piece_of(f.bytes, f.at, out.pieces.size()));
    } else if (f.number == 2) {
      read_trainer(f.bytes, f.at, out);
    } else if (f.number == 3) {
      read_normalizer(f.bytes, f.at, out);
    }
  }
  if (out.pieces.empty()) throw Error(Fault::BadFile, "holds no pieces");
}

}  // namespace

SentencePieceModel read_sentencepiece(const Source& file) try {
  if (file.size() > kMaxTokenizerFile)
    throw Error(Fault::BadFile,
                fmt::format("has {} bytes, wtool's limit is {}", file.size(), kMaxTokenizerFile));
  SentencePieceModel out;
  out.bytes.resize(static_cast<std::size_t>(file.size()));
  file.read(0, out.bytes);
  // The first field of every model written by the library is a piece.
  if (out.bytes.empty() || out.bytes[0] != std::byte{0x0A}) {
    const std::string what = diagnose(file);
    throw Error(Fault::BadFile, what.starts_with("is no ") ? "is no SentencePiece model" : what);
  }
  read_model(out);
  return out;
} catch (Error& e) {
  e.in(file.name());
  throw;
}

}  // namespace wtool
