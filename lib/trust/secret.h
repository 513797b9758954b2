#pragma once
#include <string>
#include <string_view>

namespace wtool {

// Text that must not stay in memory: a passphrase, a private key. Wiped when it is freed, moved
// from or grown; not copied.
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string_view text) { append(text); }
  ~Secret() { wipe(); }
  Secret(Secret&& other) noexcept;
  Secret& operator=(Secret&& other) noexcept;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;

  void append(std::string_view more);
  void pop_back() noexcept;  // not if empty
  std::string_view view() const noexcept { return text_; }
  bool empty() const noexcept { return text_.empty(); }

 private:
  void wipe() noexcept;
  std::string text_;
};

}  // namespace wtool
