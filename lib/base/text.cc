#include "lib/base/text.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include <fmt/format.h>
#include <sys/random.h>

#include "lib/base/utf8.h"

namespace wtool {
namespace {

// Changes what follows it on the screen: C0 and C1 controls, line separators, bidi controls, BOM.
bool is_control(std::uint32_t c) noexcept {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x061C || (c >= 0x200B && c <= 0x200F) ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF ||
         (c >= 0xFFF9 && c <= 0xFFFB) || (c >= 0xE0000 && c <= 0xE0FFF);
}

void append_escape(std::string& out, std::uint32_t c) {
  switch (c) {
    case '\n': out += "\\n"; return;
    case '\r': out += "\\r"; return;
    case '\t': out += "\\t"; return;
    default: break;
  }
  if (c < 0x100)
    fmt::format_to(std::back_inserter(out), "\\x{:02x}", c);
  else if (c < 0x10000)
    fmt::format_to(std::back_inserter(out), "\\u{:04x}", c);
  else
    fmt::format_to(std::back_inserter(out), "\\U{:08x}", c);
}

std::uint64_t seed() noexcept {
  static const std::uint64_t value = [] {
    std::uint64_t s = 0x9E3779B97F4A7C15u;
    if (::getrandom(&s, sizeof s, GRND_NONBLOCK) < 0) s ^= reinterpret_cast<std::uintptr_t>(&s);
    return s | 1;
  }();
  return value;
}

std::uint64_t mix(std::uint64_t a, std::uint64_t b) noexcept {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

// Insertions, deletions, changes, and swaps of two neighbours ('ggfu').
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before.swap(last);
    last.swap(row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row.back();
}

bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

}  // namespace

bool is_utf8(std::string_view s, std::size_t* bad) noexcept {
  for (std::size_t i = 0; i < s.size();) {
    while (i + 8 <= s.size()) {  // eight ASCII bytes at a time
      std::uint64_t word;
      std::memcpy(&word, s.data() + i, 8);
      if (word & 0x8080808080808080u) break;
      i += 8;
    }
    if (i == s.size()) break;
    const CodePoint c = next_code_point(s.substr(i));
    if (!c.valid) {
      if (bad) *bad = i;
      return false;
    }
    i += c.length;
  }
  return true;
}

std::string printable(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (std::size_t i = 0; i < s.size();) {
    const CodePoint c = next_code_point(s.substr(i));
    if (!c.valid) {
      append_escape(out, static_cast<unsigned char>(s[i++]));
      continue;
    }
    if (is_control(c.value))
      append_escape(out, c.value);
    else
      out += s.substr(i, c.length);
    i += c.length;
  }
  return out;
}

std::string quoted(std::string_view s, std::size_t most) {
  if (s.size() <= most) return "'" + printable(s) + "'";
  return "'" + printable(s.substr(0, most / 2)) + "…" + printable(s.substr(s.size() - most / 3)) +
         "'";
}

std::string human_bytes(std::uint64_t bytes) {
  static constexpr std::array kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double v = static_cast<double>(bytes);
  std::size_t u = 0;
  while (v >= 1023.95 && u + 1 < kUnits.size()) {
    v /= 1024;
    ++u;
  }
  return fmt::format("{:.{}f} {}", v, u >= 3 ? 2 : 1, kUnits[u]);
}

std::string human_count(std::uint64_t n) {
  if (n < 10'000) return fmt::format("{}", n);
  double v = static_cast<double>(n);
  for (const char* unit : {"K", "M", "B", "T"}) {
    v /= 1000;
    if (v < 999.95 || *unit == 'T')
      return fmt::format("{:.{}f} {}", v, *unit == 'B' || *unit == 'T' ? 2 : 1, unit);
  }
  return {};
}

std::optional<std::uint64_t> parse_u64(std::string_view text) noexcept {
  if (text.empty()) return std::nullopt;
  std::uint64_t n = 0;
  for (const char c : text) {
    if (!is_digit(c)) return std::nullopt;
    const auto d = static_cast<std::uint64_t>(c - '0');
    if (n > (~std::uint64_t{0} - d) / 10) return std::nullopt;
    n = n * 10 + d;
  }
  return n;
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  const auto end = text.find_first_not_of("0123456789.");
  const std::string number(text.substr(0, end));
  std::string unit = lower(end == std::string_view::npos ? "" : text.substr(end));
  while (unit.starts_with(' ')) unit.erase(0, 1);
  struct Unit {
    std::string_view name;
    double factor;
  };
  static constexpr std::array kUnits{
      Unit{"", 1},         Unit{"b", 1},        Unit{"k", 1e3},      Unit{"kb", 1e3},
      Unit{"kib", 0x1p10}, Unit{"m", 1e6},      Unit{"mb", 1e6},     Unit{"mib", 0x1p20},
      Unit{"g", 1e9},      Unit{"gb", 1e9},     Unit{"gib", 0x1p30}, Unit{"t", 1e12},
      Unit{"tb", 1e12},    Unit{"tib", 0x1p40},
  };
  const auto* it = std::ranges::find(kUnits, unit, &Unit::name);
  if (it == kUnits.end() || number.empty() || number == ".") return std::nullopt;
  if (it->factor == 1) return parse_u64(number);
  if (std::ranges::count(number, '.') > 1 || number.size() > 20) return std::nullopt;
  const double v = std::stod(number) * it->factor;
  if (!(v < 0x1p63)) return std::nullopt;
  return static_cast<std::uint64_t>(v);
}

bool natural_less(std::string_view a, std::string_view b) noexcept {
  const std::string_view whole_a = a, whole_b = b;
  while (!a.empty() && !b.empty()) {
    if (is_digit(a[0]) && is_digit(b[0])) {
      const auto run = [](std::string_view& s) {
        while (s.size() > 1 && s[0] == '0' && is_digit(s[1])) s.remove_prefix(1);
        std::size_t n = 0;
        while (n < s.size() && is_digit(s[n])) ++n;
        const std::string_view digits = s.substr(0, n);
        s.remove_prefix(n);
        return digits;
      };
      const std::string_view x = run(a), y = run(b);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
      continue;
    }
    if (a[0] != b[0]) return static_cast<unsigned char>(a[0]) < static_cast<unsigned char>(b[0]);
    a.remove_prefix(1);
    b.remove_prefix(1);
  }
  if (a.empty() != b.empty()) return a.empty();
  return whole_a < whole_b;  // equal but for leading zeros
}

std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates) {
  constexpr std::size_t kLongest = 256;  // the distance costs the product of the lengths
  if (word.empty() || word.size() > kLongest) return {};
  std::string_view best;
  std::size_t least = std::max<std::size_t>(1, word.size() / 3) + 1;
  const std::string w = lower(word);
  for (const std::string_view c : candidates) {
    if (c.size() > kLongest || c.size() > w.size() + least || w.size() > c.size() + least) continue;
    const std::size_t d = edit_distance(w, lower(c));
    if (d < least) {
      least = d;
      best = c;
    }
  }
  return best;
}

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::uint64_t hash_text(std::string_view s) noexcept {
  constexpr std::uint64_t kA = 0xA0761D6478BD642Fu, kB = 0xE7037ED1A0B428DBu;
  std::uint64_t h = seed() ^ mix(s.size() ^ kA, kB);
  const char* p = s.empty() ? "" : s.data();  // memcpy takes no null, even for no bytes
  std::size_t left = s.size();
  const auto word = [](const char* at, std::size_t n) {
    std::uint64_t w = 0;
    std::memcpy(&w, at, n);
    return w;
  };
  for (; left > 16; p += 16, left -= 16) h = mix(word(p, 8) ^ kA, word(p + 8, 8) ^ h);
  const std::size_t first = std::min<std::size_t>(left, 8);
  h = mix(word(p, first) ^ kB, word(p + first, left - first) ^ h);
  return mix(h ^ seed(), kA);
}

std::string folded(std::string_view name) {
  std::string out;
  for (std::size_t i = 0; i < name.size();) {
    const auto end = std::min(name.find('.', i), name.size());
    const std::string_view part = name.substr(i, end - i);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == part.npos;
    out += number ? std::string_view("*") : part;
    if (end < name.size()) out += '.';
    i = end + 1;
  }
  return out;
}

}  // namespace wtool
