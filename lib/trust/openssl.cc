#include "lib/trust/openssl.h"

#include <openssl/crypto.h>
#include <openssl/err.h>

#include "lib/trust/openssl_memory.h"

namespace wtool {

void start_openssl() {
  give_openssl_a_reserve();
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
}

std::string openssl_reason() {
  check_openssl_memory();  // then that is the reason
  const char* reason = ERR_reason_error_string(ERR_get_error());
  ERR_clear_error();
  return reason ? reason : "";
}

Error cannot(std::string_view what) {
  std::string text = "OpenSSL cannot " + std::string(what);
  if (const std::string reason = openssl_reason(); !reason.empty()) text += ": " + reason;
  return Error(Fault::Internal, std::move(text));
}

}  // namespace wtool
