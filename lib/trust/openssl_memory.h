#pragma once

namespace wtool {

// OpenSSL 3.0 crashes, or goes on without an algorithm, where an allocation of its own fails. So it
// never sees one fail: what the system refuses comes from a small reserve, and we are told.

// Before anything else of OpenSSL is used; once is enough.
void give_openssl_a_reserve() noexcept;
// After a call of OpenSSL, before its result is believed: throws std::bad_alloc if memory had run
// out by then.
void check_openssl_memory();

}  // namespace wtool
