#pragma once
// A SentencePiece model: tokenizer.model, a protobuf message (sentencepiece_model.proto).
#include <cstdint>
#include <string_view>
#include <vector>

#include "lib/model/source.h"

namespace wtool {

struct SentencePieceModel {
  enum class Type : std::uint8_t { Normal = 1, Unknown, Control, UserDefined, Unused, Byte };
  enum class Kind : std::uint8_t { Unigram = 1, Bpe, Word, Char };
  struct Piece {
    std::string_view text;  // UTF-8
    float score = 0;        // finite
    Type type = Type::Normal;
  };

  Buffer bytes;  // what the views look into
  std::vector<Piece> pieces;
  Kind kind = Kind::Unigram;
  // How text is normalised; the defaults are the format's.
  std::string_view charsmap;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true;
};

// Throws BadFile: what is wrong, and at which byte.
SentencePieceModel read_sentencepiece(const Source& file);

}  // namespace wtool
