#include "formats/magic.h"

#include <array>

namespace wtool {
namespace {

using namespace std::string_view_literals;

// Four bytes or more, so that weights meet them once in 2^32 tensors at most.
constexpr std::array kPayloads{
    Magic{0, "PK\x03\x04"sv, "a zip archive", ""},
    Magic{0, "\x1F\x8B\x08\0"sv, "gzip-compressed", "unpack it first"},
    Magic{0, "\x28\xB5\x2F\xFD"sv, "zstd-compressed", "unpack it first"},
    Magic{0, "\xFD\x37zXZ\0"sv, "xz-compressed", "unpack it first"},
    Magic{4, "1AY&SY"sv, "bzip2-compressed", "unpack it first"},
    Magic{0, "7z\xBC\xAF\x27\x1C"sv, "a 7-Zip archive", "unpack it first"},
    Magic{0, "Rar!\x1A\x07"sv, "a RAR archive", "unpack it first"},
    Magic{257, "ustar"sv, "a tar archive", "unpack it first"},
    Magic{0,
          "\x7F"
          "ELF"sv,
          "a program or library (ELF)", "not a weight file"},
    Magic{0, "\xCF\xFA\xED\xFE"sv, "a program or library (Mach-O)", "not a weight file"},
    Magic{0, "\xCA\xFE\xBA\xBE"sv, "a program or library (Mach-O, Java)", "not a weight file"},
    Magic{0, "MZ\x90\0\x03\0\0\0"sv, "a Windows program", "not a weight file"},
    Magic{0, "#!/"sv, "a script", "not a weight file"},
    Magic{0, "#! /"sv, "a script", "not a weight file"},
    Magic{0, "<?php"sv, "a script", "not a weight file"},
    Magic{0, "\0asm\x01\0\0\0"sv, "a WebAssembly program", "not a weight file"},
    Magic{0, "%PDF-"sv, "a PDF document", ""},
    Magic{0, "\x89PNG\r\n\x1A\n"sv, "a PNG picture", ""},
};
// The rest: weak, or weights of other tools.
constexpr std::array kOthers{
    Magic{0, "\x1F\x8B"sv, "gzip-compressed", "unpack it first"},
    Magic{0, "BZh"sv, "bzip2-compressed", "unpack it first"},
    Magic{0, "MZ"sv, "a Windows program", "not a weight file"},
    Magic{0, "%PDF"sv, "a PDF document", ""},
    Magic{0, "\x89PNG"sv, "a PNG picture", ""},
    Magic{0, "\x89HDF\r\n\x1A\n"sv, "an HDF5 file (Keras), which wtool does not read", ""},
    Magic{4, "TFL3"sv, "a TensorFlow Lite model, which wtool does not read", ""},
    Magic{0, "lmgg"sv, "a GGML file from before GGUF", "convert it with llama.cpp's old scripts"},
    Magic{0, "fmgg"sv, "a GGML file from before GGUF", "convert it with llama.cpp's old scripts"},
    Magic{0, "tjgg"sv, "a GGML file from before GGUF", "convert it with llama.cpp's old scripts"},
};

bool fits(const Magic& m, std::string_view head) noexcept {
  return head.size() >= m.at + m.bytes.size() && head.substr(m.at, m.bytes.size()) == m.bytes;
}

template <class Table>
const Magic* first_fit(const Table& table, std::string_view head) noexcept {
  for (const Magic& m : table)
    if (fits(m, head)) return &m;
  return nullptr;
}

}  // namespace

const Magic* magic_of(std::string_view head) noexcept {
  const Magic* m = payload_magic_of(head);
  return m ? m : first_fit(kOthers, head);
}

const Magic* payload_magic_of(std::string_view head) noexcept {
  return first_fit(kPayloads, head);
}

bool is_pickle(std::string_view head) noexcept {
  if (head.size() < 3 || head[0] != '\x80' || head[1] < 2 || head[1] > 5) return false;
  return "}]()cNKMJX\x8a\x8c\x95U"sv.find(head[2]) != std::string_view::npos;
}

}  // namespace wtool
