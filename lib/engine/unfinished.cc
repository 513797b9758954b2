#include "lib/engine/unfinished.h"

#include <mutex>

namespace wtool {
namespace {

std::mutex g_mutex;
Unfinished* g_first = nullptr;

}  // namespace

Unfinished::Unfinished(Undo undo, void* what) noexcept : undo_(undo), what_(what) {
  const std::scoped_lock lock(g_mutex);
  next_ = g_first;
  g_first = this;
}

Unfinished::~Unfinished() {
  const std::scoped_lock lock(g_mutex);
  Unfinished** at = &g_first;
  while (*at != this) at = &(*at)->next_;
  *at = next_;
}

void undo_unfinished() noexcept {
  static bool locked = false;   // by the one thread that may come here
  if (!locked) g_mutex.lock();  // for good: from here on nobody enters or leaves
  locked = true;
  for (const Unfinished* u = g_first; u; u = u->next_) u->undo_(u->what_);
}

}  // namespace wtool
