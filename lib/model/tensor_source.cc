#include "lib/model/tensor_source.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "lib/base/error.h"

namespace wtool {
namespace {

class TensorSource final : public Source {
 public:
  TensorSource(TensorPtr tensor, std::string name)
      : tensor_(std::move(tensor)),
        name_(std::move(name)),
        type_(info(tensor_->dtype())),
        size_(tensor_->bytes()),
        row_bytes_(tensor_->whole().rows ? size_ / tensor_->whole().rows : 0) {}

  const std::string& name() const noexcept override { return name_; }
  std::uint64_t size() const noexcept override { return size_; }

  void read(std::uint64_t offset, MutableBytes out) const override {
    if (offset > size_ || out.size() > size_ - offset)
      throw Error(Fault::BadFile,
                  fmt::format("{} bytes at {} but there are {}", out.size(), offset, size_))
          .in(name_);
    Scratch scratch;
    while (!out.empty()) {
      const std::uint64_t row = offset / row_bytes_, within = offset % row_bytes_;
      const std::size_t took = within == 0 && out.size() >= row_bytes_
                                   ? rows(row, out, scratch)
                                   : part(row, within, out, scratch);
      out = out.subspan(took);
      offset += took;
    }
  }

 private:
  std::size_t rows(std::uint64_t row, MutableBytes out, Scratch& scratch) const {
    const std::uint64_t count = out.size() / row_bytes_;
    const auto bytes = static_cast<std::size_t>(count * row_bytes_);
    tensor_->read({row, count, 0, tensor_->whole().cols}, out.first(bytes), scratch);
    return bytes;
  }

  // A piece of one row, which may begin and end inside a block.
  std::size_t part(std::uint64_t row, std::uint64_t within, MutableBytes out,
                   Scratch& scratch) const {
    constexpr std::uint64_t kPiece = 1u << 20;
    const std::uint64_t block = type_.block_bytes, first = within / block;
    const std::uint64_t wanted = std::min<std::uint64_t>({row_bytes_ - within, out.size(), kPiece});
    const std::uint64_t last = (within + wanted + block - 1) / block;
    Buffer piece(static_cast<std::size_t>((last - first) * block));
    tensor_->read({row, 1, first * type_.block_elems, (last - first) * type_.block_elems}, piece,
                  scratch);
    const auto bytes = static_cast<std::size_t>(wanted);
    std::memcpy(out.data(), piece.data() + (within - first * block), bytes);
    return bytes;
  }

  TensorPtr tensor_;
  std::string name_;
  const DTypeInfo& type_;
  std::uint64_t size_, row_bytes_;
};

}  // namespace

Extent canonical_bytes(const TensorPtr& tensor, const std::string& name) {
  const Box whole = tensor->whole();
  if (const auto as_it_lies = tensor->raw(whole);
      as_it_lies && as_it_lies->bytes == tensor->bytes())
    return *as_it_lies;
  const std::uint64_t bytes = tensor->bytes();
  return {std::make_shared<TensorSource>(tensor, name), 0, bytes};
}

}  // namespace wtool
