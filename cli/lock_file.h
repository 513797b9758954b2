#pragma once
#include <string>

#include "lib/model/lock.h"

namespace wtool {

// wtool.lock/1: JSON made for review, a tensor a line, sorted.
std::string lock_text(const Lock& lock);
// Throws BadFile with the place and the position, Unsupported for another version.
Lock read_lock(const std::string& path);

}  // namespace wtool
