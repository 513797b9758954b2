#pragma once
#include "lib/model/model.h"
#include "tests/fuzz/target.h"

namespace wtool::fuzz {

// How far one input may make us go: hostile files describe tensors that share their bytes.
struct Budget {
  std::uint64_t bytes = std::uint64_t{4} << 20;
};

// Whether a tensor may turn out, on reading, not to be what its header says.
enum class Values : std::uint8_t {
  Stored,   // no: all of it was checked when the file was opened
  Decoded,  // yes: a scheme's indices and scales are values
};
// Every box of it, in its own type and decoded; in other boxes again, which must give the same.
void expect_reads(const Tensor& tensor, Values values, Budget& budget);

// The bytes as a file of this format, in each mode: Error, or a catalog of which every tensor
// reads; and what is sound can be written and then says the same.
void run_reader(const Format& format, Bytes input);

// The files as a folder's, which is opened and each tensor in it read, by whatever scheme.
struct FolderFile {
  std::string name, content;
};
void run_folder(const std::vector<FolderFile>& files);

// An error that no input may lead to.
void expect_honest(const Error& error);

}  // namespace wtool::fuzz
