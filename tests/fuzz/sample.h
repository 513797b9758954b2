#pragma once
#include <deque>
#include <string>
#include <vector>

#include "lib/model/model.h"

namespace wtool::fuzz {

// Tensors for patterns to be matched against: names, types and shapes, no data.
struct Sample {
  std::deque<std::string> names;
  std::deque<Shape> shapes;
  std::vector<LogicalTensor> tensors;

  Sample() {
    for (const char* part : {"self_attn.q_proj", "mlp.up_proj", "input_layernorm"})
      for (const char* layer : {"0", "3", "10"})
        add(std::string("model.layers.") + layer + "." + part + ".weight", {64, 32}, DType::BF16);
    add("lm_head.weight", {128, 32}, DType::F32);
    add("odd name [1,2] {a}*\\", {2, 3, 4}, DType::Q4_K);
    add("", {}, DType::I8);
    add("caf\xc3\xa9 \xff", {0, 7}, DType::F16);
  }
  Model model() const {
    Model out;
    out.path = "model";
    out.tensors = tensors;
    return out;
  }
  void add(std::string name, Shape shape, DType dtype) {
    names.push_back(std::move(name));
    shapes.push_back(std::move(shape));
    LogicalTensor t;
    t.name = names.back();
    t.shape = shapes.back();
    t.dtype = dtype;
    tensors.push_back(t);
  }
};

}  // namespace wtool::fuzz
