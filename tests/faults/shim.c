// Preloaded into a program, counts its calls that can fail, and makes the n-th go wrong.
//
//   FAULT_CALLS=write,pwrite,…  what is counted; without it all that this file wraps but memory
//   FAULT_AT=n                  the call that goes wrong, from 1
//   FAULT_HOW=ENOSPC            how: an errno, "short" (half of the bytes), or a signal (SIGKILL,
//                               SIGSTOP, …) that is raised before the call is made
//   FAULT_STICKY=1              so do all calls counted after it
//   FAULT_ALWAYS=link=EPERM,…   these fail each time, and are not counted
//   FAULT_MEMORY=n, FAULT_MEMORY_OVER=bytes, FAULT_MEMORY_COUNT=FILE
//                               the n-th allocation from main on (of more than so many bytes)
//                               fails; how many there were goes to FILE
//   FAULT_NOSYNC=1              fsync and fdatasync succeed at once: thousands of runs take seconds
//   FAULT_LOG=FILE              a line a call: number (0: not counted), name, result (or errno's
//                               name with "!"), first path, second path; separated by tabs
//
// Writes to standard error are left alone: what is said there is what the tests look at. Opening is
// counted if it creates something, or if it is a folder's.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
  const char* name;
  int value;
} kErrors[] = {{"ENOSPC", ENOSPC},         {"EIO", EIO},       {"EDQUOT", EDQUOT},
               {"EINTR", EINTR},           {"EINVAL", EINVAL}, {"ENOSYS", ENOSYS},
               {"EOPNOTSUPP", EOPNOTSUPP}, {"EPERM", EPERM},   {"EACCES", EACCES},
               {"EROFS", EROFS},           {"EXDEV", EXDEV},   {"EMFILE", EMFILE},
               {"ENOMEM", ENOMEM},         {"EAGAIN", EAGAIN}, {"ENOLCK", ENOLCK}};
static const struct {
  const char* name;
  int value;
} kSignals[] = {
    {"SIGKILL", SIGKILL}, {"SIGTERM", SIGTERM}, {"SIGINT", SIGINT}, {"SIGSTOP", SIGSTOP}};

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

static const char *g_calls, *g_always;
static long g_at;
static int g_error, g_signal, g_short, g_sticky, g_nosync, g_log = -1;
static atomic_long g_count;

static long g_memory_at;
static size_t g_memory_over;
static atomic_long g_memory_count;
static atomic_int g_memory_armed;

static int error_named(const char* name, size_t length) {
  for (size_t i = 0; i < COUNT_OF(kErrors); ++i)
    if (strlen(kErrors[i].name) == length && memcmp(kErrors[i].name, name, length) == 0)
      return kErrors[i].value;
  return 0;
}
static const char* name_of_error(int value) {
  for (size_t i = 0; i < COUNT_OF(kErrors); ++i)
    if (kErrors[i].value == value) return kErrors[i].name;
  return "other";
}

static long number_in(const char* variable) {
  const char* text = getenv(variable);
  return text ? atol(text) : 0;
}

__attribute__((constructor)) static void read_settings(void) {
  g_calls = getenv("FAULT_CALLS");
  g_always = getenv("FAULT_ALWAYS");
  g_at = number_in("FAULT_AT");
  g_sticky = number_in("FAULT_STICKY") != 0;
  g_nosync = number_in("FAULT_NOSYNC") != 0;
  g_memory_at = number_in("FAULT_MEMORY");
  g_memory_over = (size_t)number_in("FAULT_MEMORY_OVER");
  const char* how = getenv("FAULT_HOW");
  if (how) {
    g_error = error_named(how, strlen(how));
    g_short = strcmp(how, "short") == 0;
    for (size_t i = 0; i < COUNT_OF(kSignals); ++i)
      if (strcmp(kSignals[i].name, how) == 0) g_signal = kSignals[i].value;
    if (!g_error && !g_short && !g_signal) {
      fprintf(stderr, "shim: unknown fault '%s'\n", how);
      _exit(99);
    }
  }
  const char* log = getenv("FAULT_LOG");
  if (!log) return;
  const int fd =
      (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  g_log = fcntl(fd, F_DUPFD_CLOEXEC, 200);  // the program's own numbers stay what they would be
  syscall(SYS_close, fd);
}

__attribute__((destructor)) static void tell_memory(void) {
  const char* path = getenv("FAULT_MEMORY_COUNT");
  if (!path) return;
  char text[32];
  const int n = snprintf(text, sizeof text, "%ld\n", atomic_load(&g_memory_count));
  const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  syscall(SYS_write, fd, text, n);
  syscall(SYS_close, fd);
}

// Where `name` stands in "a,b,c" or "a=x,b=y", or null.
static const char* in_list(const char* list, const char* name) {
  const size_t length = strlen(name);
  for (const char* at = list; at && *at; at = strchr(at, ','), at = at ? at + 1 : at)
    if (strncmp(at, name, length) == 0 && strchr(",=", at[length])) return at;
  return NULL;
}

// One call on its way: its number, what shall go wrong, and what the log will say.
struct Call {
  const char* name;
  long number;
  int error, is_short;
  char first[4096], second[4096];
};

static void path_of(int fd, char* out, size_t room) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, out, room - 1);
  out[n < 0 ? 0 : n] = 0;
}

static void tell(const struct Call* call, long result) {
  if (g_log < 0) return;
  const int error = errno;
  char line[9000], outcome[32];
  if (result < 0)
    snprintf(outcome, sizeof outcome, "!%s", name_of_error(error));
  else
    snprintf(outcome, sizeof outcome, "%ld", result);
  const int n = snprintf(line, sizeof line, "%ld\t%s\t%s\t%s\t%s\n", call->number, call->name,
                         outcome, call->first, call->second);
  syscall(SYS_write, g_log, line, n);
  errno = error;
}

static void begin(struct Call* call, const char* name, int fd, const char* first,
                  const char* second) {
  *call = (struct Call){.name = name};
  if (g_log >= 0) {
    if (first)
      snprintf(call->first, sizeof call->first, "%s", first);
    else
      path_of(fd, call->first, sizeof call->first);
    if (second) snprintf(call->second, sizeof call->second, "%s", second);
  }
  const char* always = in_list(g_always, name);
  if (always) {
    const char* error = always + strlen(name) + 1;
    call->error = error_named(error, strcspn(error, ","));
    return;
  }
  if (g_calls && !in_list(g_calls, name)) return;
  call->number = atomic_fetch_add(&g_count, 1) + 1;
  if (g_at == 0 || call->number < g_at || (call->number > g_at && !g_sticky)) return;
  call->error = g_error;
  call->is_short = g_short;
  if (g_signal) {
    char note[16] = "signal";
    struct Call before = *call;
    memcpy(before.second, note, sizeof note);
    tell(&before, 0);
    kill(getpid(), g_signal);  // handled, or stopped and continued, before it returns
  }
}

#define NEXT(function) ((__typeof__(&function))dlsym(RTLD_NEXT, #function))
// The call as the program sees it: failed, or made.
#define THROUGH(call, expression) \
  long result;                    \
  if ((call).error) {             \
    errno = (call).error;         \
    result = -1;                  \
  } else {                        \
    result = (long)(expression);  \
  }                               \
  tell(&(call), result);          \
  return (__typeof__(expression))result

static size_t shorter(const struct Call* call, size_t n) {
  return call->is_short && n > 1 ? n / 2 : n;
}

ssize_t write(int fd, const void* bytes, size_t n) {
  if (fd == STDERR_FILENO) return NEXT(write)(fd, bytes, n);
  struct Call call;
  begin(&call, "write", fd, NULL, NULL);
  THROUGH(call, NEXT(write)(fd, bytes, shorter(&call, n)));
}
ssize_t pwrite(int fd, const void* bytes, size_t n, off_t at) {
  struct Call call;
  begin(&call, "pwrite", fd, NULL, NULL);
  THROUGH(call, NEXT(pwrite)(fd, bytes, shorter(&call, n), at));
}
ssize_t pwrite64(int fd, const void* bytes, size_t n, off64_t at) {
  return pwrite(fd, bytes, n, at);
}
ssize_t read(int fd, void* bytes, size_t n) {
  struct Call call;
  begin(&call, "read", fd, NULL, NULL);
  THROUGH(call, NEXT(read)(fd, bytes, shorter(&call, n)));
}
ssize_t pread(int fd, void* bytes, size_t n, off_t at) {
  struct Call call;
  begin(&call, "pread", fd, NULL, NULL);
  THROUGH(call, NEXT(pread)(fd, bytes, shorter(&call, n), at));
}
ssize_t pread64(int fd, void* bytes, size_t n, off64_t at) {
  return pread(fd, bytes, n, at);
}
ssize_t copy_file_range(int in, off64_t* in_at, int out, off64_t* out_at, size_t n,
                        unsigned flags) {
  struct Call call;
  begin(&call, "copy_file_range", out, NULL, NULL);
  THROUGH(call, NEXT(copy_file_range)(in, in_at, out, out_at, shorter(&call, n), flags));
}

int fsync(int fd) {
  struct Call call;
  begin(&call, "fsync", fd, NULL, NULL);
  THROUGH(call, g_nosync ? 0 : NEXT(fsync)(fd));
}
int fdatasync(int fd) {
  struct Call call;
  begin(&call, "fdatasync", fd, NULL, NULL);
  THROUGH(call, g_nosync ? 0 : NEXT(fdatasync)(fd));
}
int sync_file_range(int fd, off64_t at, off64_t n, unsigned flags) {
  struct Call call;
  begin(&call, "sync_file_range", fd, NULL, NULL);
  THROUGH(call, g_nosync ? 0 : NEXT(sync_file_range)(fd, at, n, flags));
}
int fallocate(int fd, int mode, off_t at, off_t n) {
  struct Call call;
  begin(&call, "fallocate", fd, NULL, NULL);
  THROUGH(call, NEXT(fallocate)(fd, mode, at, n));
}
int posix_fallocate(int fd, off_t at, off_t n) {  // says it in the result, not in errno
  struct Call call;
  begin(&call, "posix_fallocate", fd, NULL, NULL);
  const int result = call.error ? call.error : NEXT(posix_fallocate)(fd, at, n);
  tell(&call, result);
  return result;
}
int ftruncate(int fd, off_t n) {
  struct Call call;
  begin(&call, "ftruncate", fd, NULL, NULL);
  THROUGH(call, NEXT(ftruncate)(fd, n));
}
int fchmod(int fd, mode_t mode) {
  struct Call call;
  begin(&call, "fchmod", fd, NULL, NULL);
  THROUGH(call, NEXT(fchmod)(fd, mode));
}
int chmod(const char* path, mode_t mode) {
  struct Call call;
  begin(&call, "chmod", -1, path, NULL);
  THROUGH(call, NEXT(chmod)(path, mode));
}
int flock(int fd, int how) {
  struct Call call;
  begin(&call, "flock", fd, NULL, NULL);
  THROUGH(call, NEXT(flock)(fd, how));
}

int rename(const char* from, const char* to) {
  struct Call call;
  begin(&call, "rename", -1, from, to);
  THROUGH(call, NEXT(rename)(from, to));
}
int renameat(int from_at, const char* from, int to_at, const char* to) {
  struct Call call;
  begin(&call, "renameat", -1, from, to);
  THROUGH(call, NEXT(renameat)(from_at, from, to_at, to));
}
int renameat2(int from_at, const char* from, int to_at, const char* to, unsigned flags) {
  struct Call call;
  begin(&call, "renameat2", -1, from, to);
  THROUGH(call, NEXT(renameat2)(from_at, from, to_at, to, flags));
}
int link(const char* from, const char* to) {
  struct Call call;
  begin(&call, "link", -1, from, to);
  THROUGH(call, NEXT(link)(from, to));
}
int linkat(int from_at, const char* from, int to_at, const char* to, int flags) {
  struct Call call;
  begin(&call, "linkat", -1, from, to);
  THROUGH(call, NEXT(linkat)(from_at, from, to_at, to, flags));
}
int unlink(const char* path) {
  struct Call call;
  begin(&call, "unlink", -1, path, NULL);
  THROUGH(call, NEXT(unlink)(path));
}
int unlinkat(int at, const char* path, int flags) {
  struct Call call;
  begin(&call, "unlinkat", -1, path, NULL);
  THROUGH(call, NEXT(unlinkat)(at, path, flags));
}
int mkdir(const char* path, mode_t mode) {
  struct Call call;
  begin(&call, "mkdir", -1, path, NULL);
  THROUGH(call, NEXT(mkdir)(path, mode));
}

// O_TMPFILE has the bit of O_DIRECTORY.
static int opens_for_us(int flags) {
  return (flags & (O_CREAT | O_DIRECTORY)) != 0;
}
int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode =
      (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if (!opens_for_us(flags)) return NEXT(open)(path, flags, mode);
  struct Call call;
  begin(&call, "open", -1, path, NULL);
  THROUGH(call, NEXT(open)(path, flags, mode));
}
int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode =
      (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open(path, flags, mode);
}
int mkostemp(char* pattern, int flags) {
  struct Call call;
  begin(&call, "mkostemp", -1, pattern, NULL);
  THROUGH(call, NEXT(mkostemp)(pattern, flags));
}
int close(int fd) {  // closed even where it fails, as on Linux
  struct Call call;
  begin(&call, "close", fd, NULL, NULL);
  int result = NEXT(close)(fd);
  if (call.error) {
    errno = call.error;
    result = -1;
  }
  tell(&call, result);
  return result;
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*),
                   void* argument) {  // says it in the result, not in errno
  struct Call call;
  begin(&call, "pthread_create", -1, "", NULL);
  const int result =
      call.error ? call.error : NEXT(pthread_create)(thread, attributes, run, argument);
  tell(&call, result);
  return result;
}

// --- Memory. Counted from the handling of signals on, which is where main begins.

int sigaction(int number, const struct sigaction* action, struct sigaction* old) {
  if (number == SIGINT && action) atomic_store(&g_memory_armed, 1);
  return NEXT(sigaction)(number, action, old);
}

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

static int refuses_memory(size_t n) {
  if (!atomic_load_explicit(&g_memory_armed, memory_order_relaxed) || n <= g_memory_over) return 0;
  const long number = atomic_fetch_add(&g_memory_count, 1) + 1;
  if (g_memory_at == 0 || number < g_memory_at || (number > g_memory_at && !g_sticky)) return 0;
  errno = ENOMEM;
  return 1;
}
void* malloc(size_t n) {
  return refuses_memory(n) ? NULL : __libc_malloc(n);
}
void* calloc(size_t n, size_t size) {
  return refuses_memory(n * size) ? NULL : __libc_calloc(n, size);
}
void* realloc(void* old, size_t n) {
  return refuses_memory(n) ? NULL : __libc_realloc(old, n);
}
void* aligned_alloc(size_t alignment, size_t n) {
  return refuses_memory(n) ? NULL : __libc_memalign(alignment, n);
}
int posix_memalign(void** out, size_t alignment, size_t n) {
  if (refuses_memory(n)) return ENOMEM;
  *out = __libc_memalign(alignment, n);
  return *out ? 0 : ENOMEM;
}
