#pragma once
#include <string>
#include <vector>

#include "cli/common.h"
#include "cli/digest_list.h"

namespace wtool {

struct VerifyOptions {
  std::vector<std::string> paths;
  std::string sha256;  // "": not given
  std::string check, content;
  std::vector<std::string> tensors;  // patterns
  InputOptions open;  // --alone, --as; the path is in `paths`
  SignatureOptions signature;
};

// verify MODEL --content ROOT
ExitCode verify_content(const VerifyOptions& options, const Context& context);
// verify MODEL --tensors NAME --check MANIFEST: reads the header and these tensors, nothing else.
ExitCode verify_tensors(const VerifyOptions& options, const Context& context);

}  // namespace wtool
