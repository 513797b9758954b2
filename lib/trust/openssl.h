#pragma once
#include <string>
#include <string_view>

#include "lib/base/error.h"

namespace wtool {

// Before the first use of OpenSSL: without openssl.cnf, which may name providers to load.
void start_openssl();
// The oldest reason in OpenSSL's queue, which is emptied; "" if there is none. Throws bad_alloc if
// memory has run out.
std::string openssl_reason();
// "OpenSSL cannot WHAT: REASON"
Error cannot(std::string_view what);

// For a unique_ptr to what OpenSSL has allocated.
template <auto kFree>
struct Free {
  template <class T>
  void operator()(T* p) const noexcept {
    kFree(p);
  }
};

}  // namespace wtool
