#include "lib/trust/openssl_memory.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>

#include <malloc.h>
#include <openssl/crypto.h>

namespace wtool {
namespace {

// Setting OpenSSL up and one digest take 160 KiB. Untouched, this takes no memory.
constexpr std::size_t kReserve = std::size_t{1} << 20;
alignas(std::max_align_t) std::byte g_reserve[kReserve];
std::atomic<std::size_t> g_taken{0};
std::atomic<bool> g_ran_out{false};

struct alignas(std::max_align_t) Head {
  std::size_t bytes;
};

// Each piece behind its size; none is given back. Null when even the reserve is used up.
void* from_reserve(std::size_t bytes) noexcept {
  g_ran_out = true;
  if (bytes > kReserve) return nullptr;
  const std::size_t whole =
      (sizeof(Head) + bytes + alignof(Head) - 1) / alignof(Head) * alignof(Head);
  const std::size_t at = g_taken.fetch_add(whole, std::memory_order_relaxed);
  if (at > kReserve || whole > kReserve - at) return nullptr;
  auto* head = new (g_reserve + at) Head{bytes};
  return head + 1;
}
bool is_of_reserve(const void* p) noexcept {
  const auto* at = static_cast<const std::byte*>(p);
  return std::greater_equal<>()(at, g_reserve) && std::less<>()(at, g_reserve + kReserve);
}

void* take(std::size_t bytes, const char*, int) noexcept {
  if (bytes == 0) return nullptr;
  void* p = std::malloc(bytes);
  return p ? p : from_reserve(bytes);
}
void give_back(void* p, const char*, int) noexcept {
  if (!is_of_reserve(p)) std::free(p);
}
void* take_other(void* old, std::size_t bytes, const char* file, int line) noexcept {
  if (!old) return take(bytes, file, line);
  if (bytes == 0) {
    give_back(old, file, line);
    return nullptr;
  }
  if (is_of_reserve(old)) {
    void* p = take(bytes, file, line);
    if (p) std::memcpy(p, old, std::min(bytes, (static_cast<Head*>(old) - 1)->bytes));
    return p;
  }
  if (void* p = std::realloc(old, bytes)) return p;
  // How much there is of the old piece is the allocator's knowledge, not ours.
  void* p = from_reserve(bytes);
  if (p) std::memcpy(p, old, std::min(bytes, ::malloc_usable_size(old)));
  if (p) std::free(old);
  return p;
}

}  // namespace

void give_openssl_a_reserve() noexcept {
  // Refused if OpenSSL has allocated already: then its allocations fail as they always did.
  static const int kDone = CRYPTO_set_mem_functions(take, take_other, give_back);
  static_cast<void>(kDone);
}

void check_openssl_memory() {
  if (g_ran_out) throw std::bad_alloc();
}

}  // namespace wtool
