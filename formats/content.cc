#include "formats/content.h"

#include <algorithm>
#include <array>
#include <optional>

#include <fmt/format.h>

#include "formats/magic.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"
#include "lib/model/subfolders.h"

namespace wtool {
namespace {

constexpr Rule kTensor{"content.tensor", "no tensor begins like an archive or a program", false,
                       Severity::Warning},
    kMetadata{"content.metadata", "no metadata begins like an archive or a program", false,
              Severity::Warning},
    kPolyglot{"content.polyglot", "no file is an archive or a document, too", true},
    kPickle{"content.pickle", "no pickle lies beside the weights", false, Severity::Warning},
    kCode{"content.code", "no code lies beside the weights", false, Severity::Warning},
    kLink{"content.link", "no link beside the weights leads out of the folder", false,
          Severity::Warning};
constexpr std::array<const Rule*, 6> kRules{&kTensor, &kMetadata, &kPolyglot,
                                            &kPickle, &kCode,     &kLink};

constexpr std::array<std::string_view, 5> kPickles{".pkl", ".pickle", ".joblib", ".dill", ".p"};
constexpr std::array<std::string_view, 13> kPrograms{".py",  ".pyc", ".so",   ".sh",  ".exe",
                                                     ".dll", ".bat", ".cmd",  ".ps1", ".jar",
                                                     ".js",  ".php", ".dylib"};
bool is_any(std::string_view name, std::span<const std::string_view> suffixes) {
  return std::ranges::any_of(suffixes, [&](auto s) { return name.ends_with(s); });
}

constexpr std::size_t kHead = 512;   // up to tar's magic number
constexpr std::uint64_t kLeast = 8;  // bytes of anything that does harm

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
      if (const std::string_view what = payload(head); !what.empty())
        faults_.report(kMetadata, {model_.catalog.sources()[0]->name(), "metadata", e.key},
                       kNowhere, fmt::format("its value begins like {}", what),
                       "'wtool convert --unset' leaves it out");
    }
  }

  void tensors() {
    for (const TensorEntry& t : model_.catalog.entries()) {
      if (t.bytes < kLeast) continue;
      const Extent all = model_.catalog.extent(t);
      const std::string head = head_of(all);
      std::string_view what = payload(head);
      if (what.empty() && is_pickle(head) && ends_like_a_pickle(all)) what = "a Python pickle";
      if (!what.empty())
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
      if (const auto link = line.rfind(": a link that leads out"); link != std::string::npos)
        faults_.report(kLink, joined(line.substr(0, link)), kNowhere,
                       "is a link that leads out of the folder",
                       "put the file itself there, or remove the link");
      const auto colon = line.rfind(": PyTorch weights");
      if (colon != std::string::npos)
        faults_.report(kPickle, joined(line.substr(0, colon)), kNowhere,
                       "PyTorch weights are a pickle, which can run code when opened",
                       "remove it: some engines prefer it to the files checked here");
    }
    for (const SideFile& s : model_.side) file_beside(s.name);
    if (!model_.is_folder) return;
    const Subfolders below = below_subfolders(model_.path);
    for (const std::string& name : below.files) file_beside(name);
    for (const Subfolders::Skipped& s : below.skipped)
      faults_.note(s.path, "is not searched for code: " + s.why);
  }

 private:
  void file_beside(const std::string& name) {
    const std::string small = lower(name);
    if (is_any(small, kPickles))
      faults_.report(kPickle, joined(name), kNowhere, "a pickle can run code when opened",
                     "remove it unless you made it");
    else if (is_any(small, kPrograms))
      faults_.report(kCode, joined(name), kNowhere,
                     "code, which engines run when they are told to trust the folder",
                     "read it before you load the model with trust_remote_code");
  }

  static bool is_bytes(MetaType type) noexcept {
    return type == MetaType::U8 || type == MetaType::I8;
  }
  std::string joined(const std::string& name) const { return wtool::joined(model_.path, name); }
  static std::string head_of(const Extent& e) {
    return std::string(
        as_text(read_all({e.source, e.offset, std::min<std::uint64_t>(e.bytes, kHead)})));
  }
  static std::string_view payload(std::string_view head) noexcept {  // empty: none
    const Magic* m = payload_magic_of(head);
    return m ? m->what : std::string_view();
  }
  // STOP is its last byte, or zeros fill up the tensor after it.
  static bool ends_like_a_pickle(const Extent& e) {
    Buffer tail(static_cast<std::size_t>(std::min<std::uint64_t>(e.bytes, kHead)));
    e.source->read(e.offset + e.bytes - tail.size(), tail);
    const std::string_view text = as_text(tail);
    const auto last = text.find_last_not_of('\0');
    return last != text.npos && text[last] == '.';
  }

  // The position of a zip's end record, wherever readers look for it: in the last 64 KiB, whatever
  // follows (APPNOTE.TXT 4.3.16). It counts if the directory that it tells of is there: before it,
  // or before the records of a zip64 (4.3.14), or if it has none and is the very end.
  static std::optional<std::uint64_t> zip_end(const Source& file) {
    constexpr std::uint64_t kRecord = 22, kComment = 0xFFFF;
    constexpr std::string_view kMark = "PK\x05\x06";
    if (file.size() < kRecord) return std::nullopt;
    Buffer tail(static_cast<std::size_t>(std::min(file.size(), kRecord + kComment)));
    const std::uint64_t begin = file.size() - tail.size();
    file.read(begin, tail);
    const std::string_view text = as_text(tail);
    for (std::size_t at = text.find(kMark); at != text.npos; at = text.find(kMark, at + 1)) {
      if (tail.size() - at < kRecord) break;
      const std::uint64_t size = load<std::uint32_t>(Bytes(tail).subspan(at + 12)),
                          place = begin + at;
      constexpr std::uint64_t kEmpty = 0, kInZip64 = 0xFFFFFFFF;
      if (size == kEmpty && at + kRecord == tail.size()) return place;
      if (size == kInZip64 && place >= 20 && has(file, place - 20, "PK\x06\x07")) return place;
      if (size != kEmpty && size <= place && has(file, place - size, "PK\x01\x02")) return place;
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
