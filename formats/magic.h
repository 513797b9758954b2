#pragma once
#include <cstddef>
#include <string_view>

namespace wtool {

// The bytes that files of other kinds begin with.
struct Magic {
  std::size_t at;
  std::string_view bytes;
  std::string_view what;    // "a zip archive"
  std::string_view advice;  // "unpack it first", or ""
};
// The row that `head`, the first bytes of a file or of a tensor's data, fits; null if none does.
const Magic* magic_of(std::string_view head) noexcept;
// Only those that no ordinary data begins with by chance, and that run or unpack: programs,
// archives, compressed data, documents. Whether they are followed by what they announce is not
// looked at.
const Magic* payload_magic_of(std::string_view head) noexcept;

// Protocol 2 to 5, and an opcode that such a pickle begins with; or PyTorch's first number.
bool is_pickle(std::string_view head) noexcept;

}  // namespace wtool
