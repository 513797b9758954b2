#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"

namespace wtool {

// What we may assume of the terminal; settled once, after the options are parsed.
struct Terminal {
  bool out_is_terminal = false, err_is_terminal = false;
  bool color_out = false, color_err = false;  // NO_COLOR, TERM=dumb and --color considered
  bool utf8 = false;                          // the locale's encoding; else ASCII only
  bool quiet = false;
  std::size_t width = 80;  // of stdout; "no limit" when it is not a terminal and COLUMNS is not set
};
const Terminal& terminal() noexcept;
void set_up_terminal(const Common& common);

// Results. Buffered; throws Io when stdout cannot be written, and Cancelled (with SIGPIPE as the
// signal to die by) when its reader has gone.
void out(std::string_view text);
void flush_out();
// The signal that asked us to stop, 0 for none. The handler stores it, units look at it, and main
// dies by it.
std::atomic<int>& stop_signal() noexcept;
void set_out_to_stderr();  // when the output file itself goes to stdout
// Everything else, to stderr; never throws. `note` obeys -q.
void note(std::string_view text);
void warn(std::string_view text);  // "wtool: warning: …"

enum class Style : std::uint8_t { Plain, Bold, Dim, Red, Green, Yellow, Cyan };
std::string paint(Style style, std::string_view text);      // for stdout
std::size_t display_width(std::string_view utf8) noexcept;  // columns on the screen
// ASCII for what the locale cannot show: "×32" to "x32", "▾" to "v", bars to digits, "…" to "...".
std::string fit_charset(std::string_view utf8);
// At most `width` columns: the middle gives way to "…". Text with control characters must have been
// through printable().
std::string cut_middle(std::string_view utf8, std::size_t width);
std::string cut_end(std::string_view utf8, std::size_t width);

// A table that fits the terminal: drops columns of the highest `priority` number first, then cuts
// the widest left-aligned column in the middle.
class Table {
 public:
  struct Column {
    std::string title;
    bool right = false;
    int priority = 0;  // 0 always stays
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void row(std::vector<std::string> cells, Style style = Style::Plain);
  void print(std::size_t indent = 0) const;  // titles only if any is not empty

 private:
  struct Line {
    std::vector<std::string> cells;
    Style style;
  };
  std::vector<Column> columns_;
  std::vector<Line> lines_;
};

std::string histogram_bar(const std::vector<std::uint64_t>& bins);  // ▁▂▃▄▅▆▇█, log-free, 8 levels

// A progress display on stderr for RunOptions::progress, by --progress: a bar at most six times a
// second, wiped at the end; or one JSON object a line; or nothing.
class Progress {
 public:
  Progress(const Common& common, std::string title, std::string unit = "");
  ~Progress();  // wipes
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  std::function<void(std::uint64_t, std::uint64_t)> callback();
  void done();  // wipes

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace wtool
