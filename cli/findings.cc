#include "cli/findings.h"

#include <algorithm>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/common.h"
#include "cli/json.h"
#include "lib/base/text.h"
#include "lib/base/utf8.h"

namespace wtool {
namespace {

using Level = Verdict::Level;

constexpr std::size_t kMostTensors = 100;  // told of one verdict

// The text of an attribute or an element. Control characters, which XML cannot hold even escaped,
// become visible as they are on the screen.
std::string xml(std::string_view text) {
  const std::string shown = printable(text);
  std::string out;
  for (std::string_view rest = shown; !rest.empty();) {
    const CodePoint c = next_code_point(rest);
    switch (c.value) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&apos;"; break;
      case 0xFFFE:
      case 0xFFFF: out += "\xEF\xBF\xBD"; break;
      default: out += rest.substr(0, c.length);
    }
    rest.remove_prefix(c.length);
  }
  return out;
}

std::string sentence(const Verdict& v) {
  return v.fix.empty() ? v.message : fmt::format("{} ({})", v.message, v.fix);
}

// What a test case says beside its name: a line for the message, the file, each tensor and the fix.
std::string details(const Verdict& v) {
  std::string text = xml(v.message) + "\n";
  if (!v.file.empty()) text += fmt::format("file: {}\n", xml(v.file));
  for (std::size_t i = 0; i < std::min(v.tensors.size(), kMostTensors); ++i)
    text += fmt::format("tensor: {}\n", xml(v.tensors[i]));
  if (v.tensors.size() > kMostTensors)
    text += fmt::format("and {} tensors more\n", v.tensors.size() - kMostTensors);
  if (!v.fix.empty()) text += fmt::format("fix: {}\n", xml(v.fix));
  return text;
}

// A path as a URI reference: relative stays relative, so that it means a place in the repository.
std::string uri(std::string_view path) {
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
  std::string out = path.starts_with('/') ? "file://" : "";
  for (const char c : path)
    if (kPlain.find(c) != std::string_view::npos)
      out += c;
    else
      fmt::format_to(std::back_inserter(out), "%{:02X}", static_cast<unsigned char>(c));
  return out;
}

std::string_view level_name(Level level) noexcept {
  return level == Level::Error ? "error" : level == Level::Warning ? "warning" : "note";
}

void write_text(JsonWriter& w, std::string_view key, std::string_view text) {
  w.key(key);
  w.begin_object();
  w.member("text", text);
  w.end_object();
}

void write_location(JsonWriter& w, const Verdict& v) {
  w.begin_object();
  if (!v.file.empty()) {
    w.key("physicalLocation");
    w.begin_object();
    w.key("artifactLocation");
    w.begin_object();
    w.member("uri", uri(v.file));
    w.end_object();
    if (v.byte != kNowhere) {
      w.key("region");
      w.begin_object();
      w.member("byteOffset", v.byte);
      w.end_object();
    }
    w.end_object();
  }
  if (!v.tensors.empty()) {
    w.key("logicalLocations");
    w.begin_array();
    for (std::size_t i = 0; i < std::min(v.tensors.size(), kMostTensors); ++i) {
      w.begin_object();
      w.member("fullyQualifiedName", v.tensors[i]);
      w.member("kind", "resource");
      w.end_object();
    }
    w.end_array();
  }
  w.end_object();
}

void write_result(JsonWriter& w, const Verdict& v, std::size_t rule) {
  w.begin_object();
  w.member("ruleId", v.rule->id);
  w.member("ruleIndex", std::uint64_t{rule});
  w.member("level", level_name(v.level));
  write_text(w, "message", sentence(v));
  // The same finding of the next run is known by this: it has no line to go by.
  w.key("partialFingerprints");
  w.begin_object();
  w.member("verdict/v1", fmt::format("{}:{}", v.rule->id, v.name));
  w.end_object();
  w.key("locations");
  w.begin_array();
  write_location(w, v);
  w.end_array();
  w.end_object();
}

void write_tool(JsonWriter& w, std::span<const VerdictRule* const> rules) {
  w.key("tool");
  w.begin_object();
  w.key("driver");
  w.begin_object();
  w.member("name", "wtool");
  w.member("version", version_number());
  w.key("rules");
  w.begin_array();
  for (const VerdictRule* r : rules) {
    w.begin_object();
    w.member("id", r->id);
    write_text(w, "shortDescription", r->summary);
    w.end_object();
  }
  w.end_array();
  w.end_object();
  w.end_object();
}

}  // namespace

void add_findings_options(CLI::App& app, FindingsOptions& o) {
  // An empty name is a variable that was not set.
  const auto not_empty = [](const std::string& s) -> std::string {
    return s.empty() ? "is empty" : "";
  };
  app.add_option("--junit", o.junit, "what was judged as JUnit XML, to a file")
      ->option_text("FILE")
      ->check(not_empty);
  app.add_option("--sarif", o.sarif, "what failed as SARIF 2.1.0, to a file")
      ->option_text("FILE")
      ->check(not_empty);
}
void add_findings_force_option(CLI::App& app, FindingsOptions& o) {
  app.add_flag("-f,--force", o.force, "replace what --junit and --sarif name");
}

void write_findings(const FindingsOptions& o, std::string_view command,
                    std::span<const Verdict> verdicts) {
  if (!o.junit.empty()) write_report_file(o.junit, junit_text(command, verdicts));
  if (!o.sarif.empty()) write_report_file(o.sarif, sarif_text(command, verdicts));
}

std::string junit_text(std::string_view command, std::span<const Verdict> verdicts) {
  const auto failures = std::ranges::count(verdicts, Level::Error, &Verdict::level);
  const std::string counts =
      fmt::format("tests=\"{}\" failures=\"{}\" errors=\"0\"", verdicts.size(), failures);
  std::string text = fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<testsuites name=\"wtool\" {0}>\n"
      "<testsuite name=\"wtool {1}\" {0} skipped=\"0\">\n",
      counts, xml(command));
  for (const Verdict& v : verdicts) {
    text += fmt::format("<testcase classname=\"{}\" name=\"{}\"", xml(v.rule->id), xml(v.name));
    if (v.level == Level::Passed && v.message.empty())
      text += "/>\n";
    else if (v.level == Level::Error)
      text += fmt::format(">\n<failure type=\"{}\" message=\"{}\">{}</failure>\n</testcase>\n",
                          xml(v.rule->id), xml(v.message), details(v));
    else
      text += fmt::format(">\n<system-out>{}</system-out>\n</testcase>\n", details(v));
  }
  return text + "</testsuite>\n</testsuites>\n";
}

std::string sarif_text(std::string_view command, std::span<const Verdict> verdicts) {
  std::vector<const VerdictRule*> rules;
  for (const Verdict& v : verdicts)
    if (std::ranges::find(rules, v.rule) == rules.end()) rules.push_back(v.rule);
  std::string text;
  JsonWriter w([&text](std::string_view s) { text += s; });
  w.begin_object();
  w.member("$schema",
           "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/"
           "sarif-schema-2.1.0.json");
  w.member("version", "2.1.0");
  w.key("runs");
  w.begin_array();
  w.begin_object();
  write_tool(w, rules);
  w.key("automationDetails");
  w.begin_object();
  w.member("id", fmt::format("wtool/{}/", command));
  w.end_object();
  w.key("results");
  w.begin_array();
  for (const Verdict& v : verdicts) {
    if (v.level == Level::Passed) continue;
    const auto rule = std::ranges::find(rules, v.rule) - rules.begin();
    write_result(w, v, static_cast<std::size_t>(rule));
  }
  w.end_array();
  w.end_object();
  w.end_array();
  w.end_object();
  return text + "\n";
}

}  // namespace wtool
