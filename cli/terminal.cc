#include "cli/terminal.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <limits>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/json.h"
#include "lib/base/text.h"
#include "lib/base/utf8.h"

namespace wtool {
namespace {

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

Terminal g_terminal;

std::string_view environment(const char* name) noexcept {
  const char* v = std::getenv(name);
  return v ? v : "";
}

// The encoding by the environment's own rules, without loading a locale.
bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    if (const auto v = environment(name); !v.empty()) {
      const std::string l = lower(v);
      return l.find("utf-8") != std::string::npos || l.find("utf8") != std::string::npos;
    }
  }
  return false;
}

std::size_t screen_width(bool is_terminal) {
  if (const auto n = parse_u64(environment("COLUMNS")); n && *n > 0 && *n < 100'000)
    return static_cast<std::size_t>(*n);
  winsize size = {};
  if (!is_terminal) return kNoLimit;
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

bool wants_color(const std::string& when, bool is_terminal) {
  if (when != "auto") return when == "always";
  return is_terminal && environment("NO_COLOR").empty() && environment("TERM") != "dumb";
}

// Stdout's buffer. Broken: an earlier write failed and was reported.
struct Out {
  std::string buffer;
  int fd = STDOUT_FILENO;
  bool broken = false;
};
Out& the_out() {
  static Out o;
  return o;
}
constexpr std::size_t kOutBuffer = std::size_t{1} << 16;

[[noreturn]] void out_failed(int error) {
  the_out().broken = true;
  the_out().buffer.clear();
  if (error == EPIPE) {
    stop_signal() = SIGPIPE;
    throw Error(Fault::Cancelled, "the reader of standard output has gone");
  }
  throw Error(Fault::Io, fmt::format("cannot write: {}", std::strerror(error)))
      .in(the_out().fd == STDOUT_FILENO ? "standard output" : "standard error");
}

void write_out(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(the_out().fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) {
      if (stop_signal() != 0) throw Error(Fault::Cancelled, "stopped by a signal");
      continue;
    }
    if (n < 0) out_failed(errno);
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

void write_err(std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

struct Interval {
  std::uint32_t first, last;
};
// Two columns: East Asian wide and full-width blocks, and the emoji that terminals draw wide
// (Unicode 15, EastAsianWidth.txt, W and F, adjoining ranges merged).
constexpr std::array kWide{
    Interval{0x1100, 0x115F},   Interval{0x231A, 0x231B},   Interval{0x23E9, 0x23EC},
    Interval{0x2614, 0x2615},   Interval{0x26A1, 0x26A1},   Interval{0x2705, 0x2705},
    Interval{0x274C, 0x274C},   Interval{0x2753, 0x2755},   Interval{0x2795, 0x2797},
    Interval{0x2B1B, 0x2B1C},   Interval{0x2E80, 0x303E},   Interval{0x3041, 0x33FF},
    Interval{0x3400, 0x4DBF},   Interval{0x4E00, 0xA4CF},   Interval{0xA960, 0xA97F},
    Interval{0xAC00, 0xD7A3},   Interval{0xF900, 0xFAFF},   Interval{0xFE30, 0xFE6F},
    Interval{0xFF00, 0xFF60},   Interval{0xFFE0, 0xFFE6},   Interval{0x16FE0, 0x18DFF},
    Interval{0x1B000, 0x1B2FF}, Interval{0x1F300, 0x1F64F}, Interval{0x1F680, 0x1F6FF},
    Interval{0x1F900, 0x1F9FF}, Interval{0x20000, 0x3FFFD},
};
// None: marks that join the character before them.
constexpr std::array kZero{
    Interval{0x0300, 0x036F}, Interval{0x0483, 0x0489}, Interval{0x0591, 0x05BD},
    Interval{0x064B, 0x065F}, Interval{0x200B, 0x200F}, Interval{0x20D0, 0x20F0},
    Interval{0xFE00, 0xFE0F}, Interval{0xFE20, 0xFE2F}, Interval{0xE0100, 0xE01EF},
};

template <std::size_t N>
bool within(const std::array<Interval, N>& table, std::uint32_t c) noexcept {
  const auto* it = std::ranges::lower_bound(table, c, {}, &Interval::last);
  return it != table.end() && c >= it->first;
}

std::size_t width_of(std::uint32_t c) noexcept {
  if (c < 0x300) return 1;
  if (within(kZero, c)) return 0;
  return within(kWide, c) ? 2 : 1;
}

struct Substitute {
  std::uint32_t from;
  std::string_view to;
};
constexpr std::array kAscii{
    Substitute{0x00B1, "+-"},  Substitute{0x00B7, "."},  Substitute{0x00D7, "x"},
    Substitute{0x2013, "-"},   Substitute{0x2014, "-"},  Substitute{0x2018, "'"},
    Substitute{0x2019, "'"},   Substitute{0x201C, "\""}, Substitute{0x201D, "\""},
    Substitute{0x2026, "..."}, Substitute{0x2192, "->"}, Substitute{0x2264, "<="},
    Substitute{0x2265, ">="},  Substitute{0x2581, "1"},  Substitute{0x2582, "2"},
    Substitute{0x2583, "3"},   Substitute{0x2584, "4"},  Substitute{0x2585, "5"},
    Substitute{0x2586, "6"},   Substitute{0x2587, "7"},  Substitute{0x2588, "8"},
    Substitute{0x25B8, ">"},   Substitute{0x25BE, "v"},  Substitute{0x2713, "ok"},
};

// The bytes at the front of `s` that fill at most `width` columns.
std::size_t prefix_bytes(std::string_view s, std::size_t width) noexcept {
  std::size_t at = 0;
  while (at < s.size()) {
    const CodePoint c = next_code_point(s.substr(at));
    const std::size_t w = width_of(c.value);
    if (w > width) break;
    width -= w;
    at += c.length;
  }
  return at;
}

std::string_view suffix_of(std::string_view s, std::size_t width) noexcept {
  std::size_t skip = display_width(s);
  while (skip > width) {
    const CodePoint c = next_code_point(s);
    skip -= width_of(c.value);
    s.remove_prefix(c.length);
  }
  return s;
}

std::string_view ellipsis() noexcept {
  return g_terminal.utf8 ? "…" : "...";
}

}  // namespace

const Terminal& terminal() noexcept {
  return g_terminal;
}

std::atomic<int>& stop_signal() noexcept {
  static std::atomic<int> signal = 0;
  return signal;
}

void set_up_terminal(const Common& common) {
  Terminal t;
  t.out_is_terminal = ::isatty(STDOUT_FILENO) == 1;
  t.err_is_terminal = ::isatty(STDERR_FILENO) == 1;
  t.color_out = wants_color(common.color, t.out_is_terminal);
  t.color_err = wants_color(common.color, t.err_is_terminal);
  t.utf8 = locale_is_utf8();
  t.quiet = common.quiet;
  t.width = screen_width(t.out_is_terminal);
  g_terminal = t;
}

void out(std::string_view text) {
  Out& o = the_out();
  if (o.broken) return;
  if (o.buffer.size() + text.size() > kOutBuffer) flush_out();
  if (text.size() > kOutBuffer) return write_out(text);
  o.buffer += text;
}

void flush_out() {
  const std::string text = std::exchange(the_out().buffer, {});
  write_out(text);
}

void set_out_to_stderr() {
  flush_out();
  the_out().fd = STDERR_FILENO;
}

void note(std::string_view text) {
  if (!g_terminal.quiet) write_err(fmt::format("wtool: {}\n", fit_charset(text)));
}

void warn(std::string_view text) {
  const std::string label = g_terminal.color_err ? "\x1b[33mwarning:\x1b[0m" : "warning:";
  write_err(fmt::format("wtool: {} {}\n", label, fit_charset(text)));
}

std::string paint(Style style, std::string_view text) {
  static constexpr std::array<std::string_view, 7> kCodes{"", "1", "2", "31", "32", "33", "36"};
  if (!g_terminal.color_out || style == Style::Plain || text.empty()) return std::string(text);
  return fmt::format("\x1b[{}m{}\x1b[0m", kCodes[static_cast<std::size_t>(style)], text);
}

std::size_t display_width(std::string_view s) noexcept {
  std::size_t n = 0;
  while (!s.empty()) {
    const CodePoint c = next_code_point(s);
    n += width_of(c.value);
    s.remove_prefix(c.length);
  }
  return n;
}

std::string fit_charset(std::string_view s) {
  if (g_terminal.utf8) return std::string(s);
  std::string ascii;
  while (!s.empty()) {
    const CodePoint c = next_code_point(s);
    if (c.value < 0x80) {
      ascii += s[0];
    } else {
      const auto* it = std::ranges::find(kAscii, c.value, &Substitute::from);
      if (it != kAscii.end())
        ascii += it->to;
      else
        for (const char byte : s.substr(0, c.length))  // as printable() shows bytes
          fmt::format_to(std::back_inserter(ascii), "\\x{:02x}", static_cast<unsigned char>(byte));
    }
    s.remove_prefix(c.length);
  }
  return ascii;
}

std::string cut_middle(std::string_view s, std::size_t width) {
  if (display_width(s) <= width) return std::string(s);
  const std::string_view gap = ellipsis();
  const std::size_t gap_width = display_width(gap);
  if (width <= gap_width) return std::string(s.substr(0, prefix_bytes(s, width)));
  const std::size_t front = (width - gap_width + 1) / 2, back = width - gap_width - front;
  return fmt::format("{}{}{}", s.substr(0, prefix_bytes(s, front)), gap, suffix_of(s, back));
}

std::string cut_end(std::string_view s, std::size_t width) {
  if (display_width(s) <= width) return std::string(s);
  const std::string_view gap = ellipsis();
  const std::size_t gap_width = display_width(gap);
  if (width <= gap_width) return std::string(s.substr(0, prefix_bytes(s, width)));
  return fmt::format("{}{}", s.substr(0, prefix_bytes(s, width - gap_width)), gap);
}

void Table::row(std::vector<std::string> cells, Style style) {
  cells.resize(columns_.size());
  for (std::string& cell : cells)
    if (!g_terminal.utf8) cell = fit_charset(cell);
  lines_.push_back({std::move(cells), style});
}

namespace {

constexpr std::size_t kGap = 2;

// Columns that would be empty in every row take no room.
std::vector<std::size_t> natural_widths(const std::vector<Table::Column>& columns,
                                        const std::vector<const std::vector<std::string>*>& rows) {
  std::vector<std::size_t> widths(columns.size(), 0);
  for (const auto* cells : rows)
    for (std::size_t i = 0; i < widths.size(); ++i)
      widths[i] = std::max(widths[i], display_width((*cells)[i]));
  for (std::size_t i = 0; i < widths.size(); ++i)
    if (widths[i] > 0) widths[i] = std::max(widths[i], display_width(columns[i].title));
  return widths;
}

std::size_t total_width(const std::vector<std::size_t>& widths) {
  std::size_t n = 0;
  for (const std::size_t w : widths)
    if (w > 0) n += w + kGap;
  return n == 0 ? 0 : n - kGap;
}

void shrink(const std::vector<Table::Column>& columns, std::vector<std::size_t>& widths,
            std::size_t limit) {
  while (total_width(widths) > limit) {
    std::size_t drop = widths.size();
    for (std::size_t i = 0; i < widths.size(); ++i)
      if (widths[i] > 0 && columns[i].priority > 0 &&
          (drop == widths.size() || columns[i].priority >= columns[drop].priority))
        drop = i;
    if (drop == widths.size()) break;
    widths[drop] = 0;
  }
  constexpr std::size_t kLeast = 12;  // below this a name says nothing
  const std::size_t total = total_width(widths);
  if (total <= limit) return;
  std::size_t widest = widths.size();
  for (std::size_t i = 0; i < widths.size(); ++i)
    if (!columns[i].right && (widest == widths.size() || widths[i] > widths[widest])) widest = i;
  if (widest == widths.size() || widths[widest] <= kLeast) return;
  widths[widest] -= std::min(widths[widest] - kLeast, total - limit);
}

}  // namespace

void Table::print(std::size_t indent) const {
  std::vector<const std::vector<std::string>*> rows;
  for (const Line& line : lines_) rows.push_back(&line.cells);
  std::vector<std::size_t> widths = natural_widths(columns_, rows);
  const std::size_t width = g_terminal.width;
  if (width != kNoLimit) shrink(columns_, widths, width > indent ? width - indent : 1);

  const auto print_line = [&](const std::vector<std::string>& cells, Style style) {
    std::string text(indent, ' ');
    std::size_t pending = 0;  // blanks before the next cell; none end a line
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (widths[i] == 0) continue;
      const std::string cell = cut_middle(cells[i], widths[i]);
      const std::size_t blank = widths[i] - std::min(widths[i], display_width(cell));
      if (columns_[i].right) pending += blank;
      if (!cell.empty()) text.append(std::exchange(pending, 0), ' ') += cell;
      if (!columns_[i].right) pending += blank;
      pending += kGap;
    }
    out(paint(style, text));
    out("\n");
  };
  std::vector<std::string> titles;
  for (const Column& c : columns_) titles.push_back(fit_charset(c.title));
  if (std::ranges::any_of(titles, [](const std::string& t) { return !t.empty(); }))
    print_line(titles, Style::Dim);
  for (const Line& line : lines_) print_line(line.cells, line.style);
}

std::string histogram_bar(const std::vector<std::uint64_t>& bins) {
  static constexpr std::array<std::string_view, 9> kBars{" ", "▁", "▂", "▃", "▄",
                                                         "▅", "▆", "▇", "█"};
  const std::uint64_t top = bins.empty() ? 0 : *std::ranges::max_element(bins);
  std::string bar;
  for (const std::uint64_t n : bins) {
    // Any count above zero shows: the lowest bar stands for "a few".
    const double share = top == 0 ? 0 : static_cast<double>(n) / static_cast<double>(top);
    const long level = n == 0 ? 0 : std::clamp(std::lround(share * 8), 1l, 8l);
    bar += kBars[static_cast<std::size_t>(level)];
  }
  return bar;
}

struct Progress::State {
  using Clock = std::chrono::steady_clock;
  enum class Kind : std::uint8_t { Off, Bar, Json } kind = Kind::Off;
  std::string title, unit;
  Clock::time_point started = Clock::now(), shown = {};
  bool drawn = false;

  std::string amount(std::uint64_t n) const {
    return unit == "bytes" ? human_bytes(n) : human_count(n);
  }
  void draw(std::uint64_t done, std::uint64_t of) {
    const double share = of == 0 ? 1 : static_cast<double>(done) / static_cast<double>(of);
    if (kind == Kind::Json) {
      std::string line;
      {
        JsonWriter w([&line](std::string_view s) { line += s; });
        w.begin_object();
        w.member("schema", "wtool.progress/1");
        w.member("title", title);
        w.member("done", done);
        w.member("of", of);
        w.member("unit", unit);
        w.end_object();
      }
      return write_err(line);
    }
    constexpr std::size_t kWidth = 24;
    const auto full = static_cast<std::size_t>(share * kWidth);
    std::string bar;
    for (std::size_t i = 0; i < kWidth; ++i)
      bar += g_terminal.utf8 ? (i < full ? "━" : " ") : (i < full ? "=" : " ");
    const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
    const std::string left = share > 0.02 && seconds > 1
                                 ? fmt::format(", {:.0f} s left", seconds / share - seconds)
                                 : "";
    write_err(fmt::format("\r\x1b[K{} {} {:3.0f} %  {} of {}{}", title, bar, share * 100,
                          amount(done), amount(of), left));
    drawn = true;
  }
};

Progress::Progress(const Common& common, std::string title, std::string unit)
    : state_(std::make_shared<State>()) {
  state_->title = std::move(title);
  state_->unit = std::move(unit);
  const bool can_draw = g_terminal.err_is_terminal && environment("TERM") != "dumb";
  if (common.progress == "json")
    state_->kind = State::Kind::Json;
  else if (common.progress == "bar" || (common.progress == "auto" && can_draw && !common.quiet))
    state_->kind = State::Kind::Bar;
}
Progress::~Progress() {
  done();
}

std::function<void(std::uint64_t, std::uint64_t)> Progress::callback() {
  if (state_->kind == State::Kind::Off) return {};
  return [state = state_](std::uint64_t done, std::uint64_t of) {
    using namespace std::chrono_literals;
    const auto now = State::Clock::now();
    // What is over in a moment needs no bar; a caller that reads JSON wants the end as well.
    if (state->kind == State::Kind::Bar && now - state->started < 300ms) return;
    const bool last = done == of && state->kind == State::Kind::Json;
    if (!last && now - state->shown < 167ms) return;
    state->shown = now;
    state->draw(done, of);
  };
}

void Progress::done() {
  if (std::exchange(state_->drawn, false)) write_err("\r\x1b[K");
}

}  // namespace wtool
