#pragma once
#include <string>
#include <string_view>

#include "cli/command.h"
#include "lib/trust/secret.h"

namespace wtool {

// --passphrase-fd, --passphrase-env; without them, the terminal is asked.
struct PassphraseOptions {
  int descriptor = -1;
  std::string variable;
};
void add_passphrase_options(CLI::App& app, PassphraseOptions& options);
bool is_given(const PassphraseOptions& options) noexcept;

// Throws Usage if there is none to be had. `twice` guards against slips when a new one is chosen.
Secret passphrase(const PassphraseOptions& options, const std::string& prompt, bool twice);

}  // namespace wtool
