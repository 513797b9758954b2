#pragma once
#include <memory>
#include <string>
#include <vector>

#include "lib/model/model.h"

namespace wtool {

// A model seen as another: tensors renamed, moved and joined, metadata made anew. Nothing is read
// before it is asked for, so all commands work on it as on a file.
struct ModelView {
  std::shared_ptr<const Model> model;  // what is seen
  std::shared_ptr<const Model> from;   // what is there: its files are the inputs
  // Of each of model->tensors: where it comes from.
  struct Origin {
    std::string tensors;      // "model.layers.0.mlp.experts.{0..3}.w1.weight"
    std::string dtype;        // as it is there
    std::string how;          // "8 heads permuted"; "" as it is
    std::uint64_t bytes = 0;  // of it, as stored there
  };
  std::vector<Origin> origins;
  std::vector<std::string> notes;  // for people: what was left out, assumed, or worth knowing
};

// Makes such a model, one tensor at a time.
class ViewBuilder {
 public:
  ViewBuilder(std::shared_ptr<const Model> from, std::string_view format);
  // `name` must be new; throws BadFile if it is not.
  void add(const std::string& name, const TensorPtr& values, ModelView::Origin origin);
  // `schemes`: of plain tensors.
  ModelView finish(Metadata meta, const Scheme& plain, std::vector<std::string> notes);
  Model& model() noexcept { return *model_; }

 private:
  std::shared_ptr<const Model> from_;
  std::shared_ptr<Model> model_ = std::make_shared<Model>();
  std::vector<ModelView::Origin> origins_;
};

// A tensor whose bytes are at hand; `name` for messages.
TensorPtr tensor_in_memory(const std::string& name, DType type, const Shape& shape, Buffer bytes);

}  // namespace wtool
