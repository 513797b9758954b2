#include "cli/terminal.h"

#include <cstdlib>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "cli/tree.h"
#include "tests/catch.h"

using namespace wtool;

namespace {

// The terminal as these variables make it; the test's own environment comes back at the end.
class Environment {
 public:
  Environment(const char* locale, const char* columns) {
    keep("LC_ALL", locale);
    keep("COLUMNS", columns);
    set_up_terminal(Common{});
  }
  ~Environment() {
    for (const auto& [name, value] : before_)
      value.empty() ? ::unsetenv(name) : ::setenv(name, value.c_str(), 1);
    set_up_terminal(Common{});
  }

 private:
  void keep(const char* name, const char* value) {
    const char* old = std::getenv(name);
    before_.emplace_back(name, old ? old : "");
    ::setenv(name, value, 1);
  }
  std::vector<std::pair<const char*, std::string>> before_;
};

// What `print` writes to standard output.
std::string captured(const std::function<void()>& print) {
  flush_out();
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const int kept = ::dup(STDOUT_FILENO);
  ::dup2(ends[1], STDOUT_FILENO);
  print();
  flush_out();
  ::dup2(kept, STDOUT_FILENO);
  ::close(kept);
  ::close(ends[1]);
  std::string text(65536, '\0');
  const ssize_t n = ::read(ends[0], text.data(), text.size());
  ::close(ends[0]);
  text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return text;
}

}  // namespace

TEST_CASE("the width of text counts columns, not bytes", "[terminal]") {
  CHECK(display_width("abc") == 3);
  CHECK(display_width("é") == 1);
  CHECK(display_width("漢字") == 4);
  CHECK(display_width("e\xCC\x81") == 1);  // e and a combining accent
  CHECK(display_width("😀") == 2);
  CHECK(display_width("\xFF") == 1);  // a byte that is no UTF-8 shows as one sign
}

TEST_CASE("text is cut to the width of the screen", "[terminal]") {
  const Environment utf8("C.UTF-8", "80");
  CHECK(cut_middle("abcdefghij", 10) == "abcdefghij");
  CHECK(cut_middle("abcdefghij", 5) == "ab…ij");
  CHECK(cut_end("abcdefghij", 5) == "abcd…");
  CHECK(display_width(cut_middle("漢字漢字漢字", 6)) <= 6);
}

TEST_CASE("without UTF-8 everything is ASCII", "[terminal]") {
  const Environment ascii("C", "80");
  CHECK_FALSE(terminal().utf8);
  CHECK(fit_charset("▾ layers ×32 …") == "v layers x32 ...");
  CHECK(fit_charset("▁█") == "18");
  CHECK(fit_charset("é") == "\\xc3\\xa9");
  CHECK(cut_end("abcdefghij", 5) == "ab...");
}

TEST_CASE("the locale's name tells whether it is UTF-8", "[terminal]") {
  CHECK([] {
    const Environment e("en_US.utf8", "80");
    return terminal().utf8;
  }());
  CHECK([] {
    const Environment e("de_DE.UTF-8", "80");
    return terminal().utf8;
  }());
  CHECK_FALSE([] {
    const Environment e("de_DE.ISO-8859-1", "80");
    return terminal().utf8;
  }());
}

TEST_CASE("a table drops its least important columns, then cuts names", "[terminal]") {
  const auto print = [] {
    Table t({{"name", false, 0}, {"shape", false, 2}, {"bytes", true, 1}});
    t.row({"a.very.long.tensor.name", "[1, 2, 3]", "12345"});
    t.row({"b", "[7]", "1"});
    t.print();
  };
  const auto at = [&](const char* columns) {
    const Environment e("C.UTF-8", columns);
    return captured(print);
  };
  CHECK(at("80") ==
        "name                     shape      bytes\n"
        "a.very.long.tensor.name  [1, 2, 3]  12345\n"
        "b                        [7]            1\n");
  CHECK(at("35") ==
        "name                     bytes\n"
        "a.very.long.tensor.name  12345\n"
        "b                            1\n");
  CHECK(at("15") ==
        "name\n"
        "a.very.…or.name\n"
        "b\n");
}

TEST_CASE("columns without content take no room", "[terminal]") {
  const Environment e("C.UTF-8", "80");
  CHECK(captured([] {
          Table t({{"", false, 0}, {"", false, 0}, {"", true, 0}});
          t.row({"x", "", "1"});
          t.row({"yy", "", "22"});
          t.print();
        }) == "x    1\nyy  22\n");
}

TEST_CASE("a histogram has eight levels, and few is not none", "[terminal]") {
  CHECK(histogram_bar({0, 1, 1000, 500, 8}) == " ▁█▄▁");
  CHECK(histogram_bar({}).empty());
  CHECK(histogram_bar({0, 0}) == "  ");
}

TEST_CASE("a write to a full device is an I/O error", "[terminal]") {
  flush_out();
  const int kept = ::dup(STDOUT_FILENO);
  const int full = ::open("/dev/full", O_WRONLY);
  if (full < 0) return;
  ::dup2(full, STDOUT_FILENO);
  out("text");
  CHECK_THROWS_WITH(flush_out(), Catch::Contains("No space left"));
  ::dup2(kept, STDOUT_FILENO);
  ::close(kept);
  ::close(full);
}
