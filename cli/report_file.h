#pragma once
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/model.h"

namespace wtool {

// A file that a command writes beside its answer: --report, --junit, --sarif.
struct ReportFile {
  std::string_view option;
  std::string path;  // "": not asked for
};
// Before any work: such a file replaces only with `force`, and never one of `taken` (inputs, the
// output) nor another report. Throws Usage or Io.
void check_report_files(std::span<const ReportFile> files, bool force,
                        std::span<const std::string> taken);
// Not even --force replaces one of `needed`, without which the output is worth nothing. `what` they
// are, for the error: "the base".
void check_stays(const std::string& output, std::span<const std::string> needed,
                 std::string_view what);
std::vector<std::string> files_of(const Model& model);                   // weights and side files
void write_report_file(const std::string& path, std::string_view text);  // all or nothing

// The answer as JSON, which `write` gives piece by piece: to the file `report`, unless that is "",
// and with `json` to standard output. True if it went there.
using JsonSink = std::function<void(std::string_view)>;
bool give_json(const std::string& report, bool json, const std::function<void(JsonSink)>& write);

}  // namespace wtool
