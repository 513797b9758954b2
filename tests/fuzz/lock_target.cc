// Lock files: what is read can be written, and then is the same lock; and it compares.
#include "cli/lock_file.h"
#include "tests/fuzz/readers.h"
#include "tests/fuzz/work_folder.h"

namespace wtool::fuzz {
namespace {

void run(Bytes input) {
  const WorkFolder folder("lock");
  folder.write("first", as_text(input));
  try {
    const Lock lock = read_lock(folder / "first");
    const std::string text = lock_text(lock);
    folder.write("second", text);
    const Lock again = read_lock(folder / "second");
    expect(lock_text(again) == text, "written, it is another lock");
    expect(changes(lock, again.tensors).empty(), "differs from itself");
    static_cast<void>(changes(lock, {}));
    static_cast<void>(changes({}, lock.tensors));
  } catch (const Error& e) {
    expect(e.fault() == Fault::BadFile || e.fault() == Fault::Unsupported, e.what());
  }
}

}  // namespace

extern const Target kLock;
const Target kLock{"lock", run, mutate_json};

}  // namespace wtool::fuzz
