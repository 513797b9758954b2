#include "formats/content.h"

#include <algorithm>
#include <array>
#include <optional>

#include <fmt/format.h>

#include "formats/magic.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr Rule kTensor{"content.tensor", "no tensor begins like an archive or a program", false,
                       Severity::Warning},
    kMetadata{"content.metadata", "no metadata begins like an archive or a program", false,
              Severity::Warning},
    kPolyglot{"content.polyglot", "no file is an archive or a document, too", true},
    kPickle{"content.pickle", "no pickle lies beside the weights", false, Severity::Warning},
    kCode{"content.code", "no code lies beside the weights", false, Severity::Warning};
constexpr std::array<const Rule*, 5> kRules{&kTensor, &kMetadata, &kPolyglot, &kPickle, &kCode};

constexpr std::size_t kHead = 512;  // up to tar's magic number

class Review {
 public:
  Review(const Model& model, Diagnostics& faults) : model_(model), faults_(faults) {}

  void metadata() {
    for (const MetaEntry& e : model_.catalog.meta) {
      std::string head;
      if (const auto* text = std::get_if<std::string>(&e.value))
        head = text->substr(0, kHead);
      else if (const auto* array = std::get_if<MetaArray>(&e.value); array && is_bytes(array->of))
        head = head_of(array->data);
      if (const char* what = payload(head))
        faults_.report(kMetadata, {model_.catalog.sources()[0]->name(), "metadata", e.key},
                       kNowhere, fmt::format("its value begins like {}", what),
                       "'wtool convert --unset' leaves it out");
    }
  }

  void tensors() {
    for (const TensorEntry& t : model_.catalog.entries()) {
      if (t.bytes < 16) continue;
      const Extent all = model_.catalog.extent(t);
      const std::string head = head_of(all);
      const char* what = payload(head);
      if (!what && is_pickle(head) && info(t.dtype).block_bytes == 1 && ends_like_a_pickle(all))
        what = "a Python pickle";
      if (what)
        faults_.report(kTensor, {all.source->name(), "tensor", t.name}, t.offset,
                       fmt::format("its data begin like {}", what),
                       "'wtool show --to raw' gets them out to be looked at");
    }
  }

  void files() {
    for (const SourcePtr& s : model_.catalog.sources()) {
      const auto report = [&](std::string_view what, std::uint64_t at) {
        faults_.report(
            kPolyglot, s->name(), at,
            fmt::format("is {}, too: programs that look for one find other content", what),
            "'wtool convert' writes the tensors alone, if that is not in one of them");
      };
      if (const auto at = zip_end(*s)) report("a zip archive", *at);
      if (const auto at = pdf_start(*s)) report("a PDF document", *at);
      if (has(*s, 257, "ustar")) report("a tar archive", 257);
      if (has(*s, 32769, "CD001")) report("an image of a disc (ISO 9660)", 32769);
    }
  }

  void folder() {
    for (const std::string& line : model_.left_out) {
      const auto colon = line.rfind(": PyTorch weights");
      if (colon != std::string::npos)
        faults_.report(kPickle, joined(line.substr(0, colon)), kNowhere,
                       "PyTorch weights are a pickle, which can run code when opened",
                       "remove it: some engines prefer it to the files checked here");
    }
    for (const SideFile& s : model_.side) {
      const std::string name = lower(s.name);
      const auto is = [&](std::string_view suffix) { return name.ends_with(suffix); };
      if (is(".pkl") || is(".pickle") || is(".joblib"))
        faults_.report(kPickle, joined(s.name), kNowhere, "a pickle can run code when opened",
                       "remove it unless you made it");
      else if (is(".py") || is(".so") || is(".sh") || is(".exe") || is(".dll") || is(".dylib"))
        faults_.report(kCode, joined(s.name), kNowhere,
                       "code, which engines run when they are told to trust the folder",
                       "read it before you load the model with trust_remote_code");
    }
  }

 private:
  static bool is_bytes(MetaType type) noexcept {
    return type == MetaType::U8 || type == MetaType::I8;
  }
  std::string joined(const std::string& name) const {
    return model_.path + (model_.path.ends_with('/') ? "" : "/") + name;
  }
  static std::string head_of(const Extent& e) {
    return std::string(
        as_text(read_all({e.source, e.offset, std::min<std::uint64_t>(e.bytes, kHead)})));
  }
  static const char* payload(std::string_view head) noexcept {
    const Magic* m = payload_magic_of(head);
    return m ? m->what.data() : nullptr;
  }
  static bool ends_like_a_pickle(const Extent& e) {
    std::array<std::byte, 1> last;
    e.source->read(e.offset + e.bytes - 1, last);
    return last[0] == std::byte{'.'};
  }

  // The position of a zip's end record, if the file has one that fits it: at most 64 KiB of comment
  // after it, up to the end of the file, and its directory before it (APPNOTE.TXT 4.3.16).
  static std::optional<std::uint64_t> zip_end(const Source& file) {
    constexpr std::uint64_t kRecord = 22, kComment = 0xFFFF;
    constexpr std::string_view kMark = "PK\x05\x06";
    if (file.size() < kRecord) return std::nullopt;
    Buffer tail(static_cast<std::size_t>(std::min(file.size(), kRecord + kComment)));
    const std::uint64_t begin = file.size() - tail.size();
    file.read(begin, tail);
    const std::string_view text = as_text(tail);
    for (std::size_t at = text.rfind(kMark); at != text.npos;
         at = at ? text.rfind(kMark, at - 1) : text.npos) {
      if (tail.size() - at < kRecord) continue;
      const auto field = [&](std::size_t i) { return Bytes(tail).subspan(at + i); };
      const std::uint64_t size = load<std::uint32_t>(field(12)),
                          from = load<std::uint32_t>(field(16)),
                          comment = load<std::uint16_t>(field(20)),
                          entries = load<std::uint16_t>(field(10));
      if (at + kRecord + comment == tail.size() && size >= 46 * entries && size <= begin + at &&
          from <= begin + at - size)
        return begin + at;
    }
    return std::nullopt;
  }

  static bool has(const Source& file, std::uint64_t at, std::string_view mark) {
    Buffer bytes(mark.size());
    if (file.size() < at + mark.size()) return false;
    file.read(at, bytes);
    return as_text(bytes) == mark;
  }

  // Viewers take a header anywhere in the first 1024 bytes, and an end mark in the last.
  static std::optional<std::uint64_t> pdf_start(const Source& file) {
    constexpr std::uint64_t kWindow = 1024;
    Buffer bytes(static_cast<std::size_t>(std::min(file.size(), kWindow)));
    file.read(0, bytes);
    const auto at = as_text(bytes).find("%PDF-");
    if (at == std::string_view::npos) return std::nullopt;
    file.read(file.size() - bytes.size(), bytes);
    return as_text(bytes).find("%%EOF") == std::string_view::npos
               ? std::nullopt
               : std::optional<std::uint64_t>(at);
  }

  const Model& model_;
  Diagnostics& faults_;
};

}  // namespace

void review_content(const Model& model, bool deep, Diagnostics& faults) {
  Review review(model, faults);
  if (!model.catalog.sources().empty()) review.metadata();
  review.files();
  review.folder();
  if (deep) review.tensors();
}

RuleList content_rules() noexcept {
  return kRules;
}

}  // namespace wtool
