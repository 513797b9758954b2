#pragma once

namespace wtool {

// What has to be undone even if the process ends without unwinding.
class Unfinished {
 public:
  using Undo = void (*)(void* what) noexcept;
  Unfinished(Undo undo, void* what) noexcept;
  ~Unfinished();
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;

 private:
  friend void undo_unfinished() noexcept;
  Undo undo_;
  void* what_;
  Unfinished* next_ = nullptr;
};

// Undoes all there is, without asking for memory. The process may do nothing afterwards but end.
void undo_unfinished() noexcept;

}  // namespace wtool
