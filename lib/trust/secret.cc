#include "lib/trust/secret.h"

#include <algorithm>
#include <utility>

#include <openssl/crypto.h>

namespace wtool {

void Secret::wipe() noexcept {
  // All of the memory, not only the text: a short one that was moved away is still there.
  text_.resize(text_.capacity());
  OPENSSL_cleanse(text_.data(), text_.size());
  text_.clear();
}

Secret::Secret(Secret&& other) noexcept {
  text_.swap(other.text_);
  other.wipe();
}
Secret& Secret::operator=(Secret&& other) noexcept {
  if (this != &other) {
    wipe();
    text_.swap(other.text_);
    other.wipe();
  }
  return *this;
}

void Secret::append(std::string_view more) {
  if (text_.size() + more.size() > text_.capacity()) {
    // By hand: a string that grows leaves its old bytes behind.
    std::string larger;
    larger.reserve(std::max(2 * text_.capacity(), text_.size() + more.size()));
    larger = text_;
    wipe();
    text_.swap(larger);
  }
  text_ += more;
}

void Secret::pop_back() noexcept {
  text_.back() = '\0';
  text_.pop_back();
}

}  // namespace wtool
