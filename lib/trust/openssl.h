#pragma once
#include <string>

namespace wtool {

// Before the first use of OpenSSL: without openssl.cnf, which may name providers to load.
void start_openssl();
// The oldest reason in OpenSSL's queue, which is emptied; "" if there is none. Throws bad_alloc if
// memory has run out.
std::string openssl_reason();

}  // namespace wtool
