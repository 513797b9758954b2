#pragma once
#include <string>

#include "lib/base/error.h"

namespace wtool {

// What the call says if it fails.
template <class F>
std::string refusal(F&& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing";
}

}  // namespace wtool
