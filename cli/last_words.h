#pragma once

namespace wtool {

// From here on want of memory ends the process at once: what is unfinished is removed, the reason
// told, and the exit status is 4. Unwinding would lead through libraries that do not survive it:
// functions that say they throw nothing (CLI11, the listing of folders), objects that are destroyed
// half-made (nlohmann-json). The same, with status 70, for what calls std::terminate.
void prepare_last_words(bool json) noexcept;

}  // namespace wtool
