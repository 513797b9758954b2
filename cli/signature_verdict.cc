#include "cli/signature_verdict.h"

#include <algorithm>

#include <fmt/format.h>

#include "cli/json.h"
#include "cli/terminal.h"
#include "lib/base/text.h"

namespace wtool {

using Answer = FileVerdict::Answer;

std::string_view word(FileVerdict::Answer answer) noexcept {
  switch (answer) {
    case Answer::Ok: return "OK";
    case Answer::Changed: return "CHANGED";
    case Answer::Missing: return "MISSING";
    case Answer::Extra: return "EXTRA";
    case Answer::Unread: return "UNREAD";
    case Answer::Error: break;
  }
  return "ERROR";
}

bool SignatureVerdict::fail(std::string why, std::string text) {
  if (!reason.empty()) return false;
  reason = std::move(why);
  message = std::move(text);
  code = worst(code, ExitCode::No);
  return false;
}

std::size_t SignatureVerdict::count(Answer answer) const {
  return static_cast<std::size_t>(std::ranges::count(files, answer, &FileVerdict::answer));
}

void SignatureVerdict::print() const {
  for (const FileVerdict& f : files) {
    const Style style = f.answer == Answer::Ok       ? Style::Green
                        : f.answer == Answer::Unread ? Style::Dim
                                                     : Style::Red;
    out(fit_charset(fmt::format("{}: {}{}\n", printable(f.name), paint(style, word(f.answer)),
                                f.detail.empty() ? "" : " (" + printable(f.detail) + ")")));
    if (!f.found.empty()) out(fmt::format("  expected {}\n  found    {}\n", f.expected, f.found));
  }
  if (code == ExitCode::Ok)
    out(fit_charset(fmt::format(
        "{}: {}: {} {}, {}, signed by {}\n", printable(signature),
        kind == Bundle::Kind::Keyless ? paint(Style::Yellow, "UNVERIFIED (keyless)")
                                      : paint(Style::Green, "VERIFIED"),
        files.size() == signed_files ? fmt::format("{}", files.size())
                                     : fmt::format("{} of {}", files.size(), signed_files),
        signed_files == 1 ? "file" : "files", human_bytes(bytes), signer)));
  else
    out(fit_charset(fmt::format("{}: {}: {}\n", printable(signature),
                                paint(Style::Red, "NOT VERIFIED"), message)));
}

void SignatureVerdict::write_members(JsonWriter& w) const {
  w.member("reason", reason.empty() ? "ok" : reason);
  w.member("message", message);
  w.key("signer");
  w.begin_object();
  w.member("kind", name_of(kind));
  for (const auto& [name, value] : facts) w.member(name, value);
  w.end_object();
  w.key("warnings");
  w.begin_array();
  for (const std::string& text : warnings) w.value(text);
  w.end_array();
}

void SignatureVerdict::write_json() const {
  JsonWriter w(out);
  w.begin_document("wtool.verify-signature/1", code == ExitCode::Ok, {model});
  w.member("signature", signature);
  write_members(w);
  w.member("signed_files", std::uint64_t{signed_files});
  w.key("files");
  w.begin_array();
  for (const FileVerdict& f : files) {
    w.begin_object();
    w.name_member("file", f.name);
    w.member("result", lower(word(f.answer)));
    if (!f.detail.empty()) w.member("detail", f.detail);
    if (!f.found.empty()) {
      w.member("expected", f.expected);
      w.member("found", f.found);
    }
    w.end_object();
  }
  w.end_array();
  w.end_object();
}

}  // namespace wtool
