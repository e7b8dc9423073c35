// Modules and launches of an emulated GPU (see driver.cpp).
#include "gpu.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include <unistd.h>

struct Function {
  const Kernel *kernel;
  unsigned most_threads; // a block
};
struct Module {
  std::string ptx;
};

static std::mutex log_mutex;
static std::map<std::string, unsigned> &launches = *new std::map<std::string, unsigned>;

static void print_launches() {
  std::lock_guard<std::mutex> lock(log_mutex);
  for (const auto &launch : launches) fprintf(stderr, "emulated GPU: %8u x %s\n", launch.second, launch.first.c_str());
  fprintf(stderr, "emulated GPU: at most %llu bytes\n", (unsigned long long)most_memory_in_use());
}

void count_launch(const std::string &name) {
  static const bool logs = setting("EMULATED_GPU_LOG", 0);
  count_start();
  if (!logs) return;
  static const int registered = atexit(print_launches);
  (void)registered;
  std::lock_guard<std::mutex> lock(log_mutex);
  launches[name]++;
}

// The sizes of the parameters that the PTX declares for a kernel, pointers as 8; false where there is no such kernel.
static bool declared(const std::string &ptx, const std::string &name, std::string &sizes, unsigned &most_threads) {
  const size_t entry = ptx.find(".entry " + name + "(");
  if (entry == std::string::npos) return false;
  const size_t close = ptx.find(')', entry), body = ptx.find('{', entry);
  for (size_t at = ptx.find(".param ", entry); at < close; at = ptx.find(".param ", at + 1)) {
    // `.param .u64 name`, or of a struct `.param .align 2 .b8 name[2]`
    const std::string line = ptx.substr(at, ptx.find('\n', at) - at);
    const size_t length = line.find('['), type = line.find_first_of("0123456789");
    const int bytes = length == std::string::npos ? atoi(line.c_str() + type) / 8 : atoi(line.c_str() + length + 1);
    sizes += bytes > 0 && bytes < 10 ? (char)('0' + bytes) : '?';
  }
  const size_t bound = ptx.find(".maxntid ", entry);
  most_threads = bound < body ? atoi(ptx.c_str() + bound + strlen(".maxntid ")) : 1024;
  return true;
}

API Status cuModuleLoadData(Module **module, const void *image) {
  if (Status status = usable()) return status;
  const char *text = (const char *)image;
  if (!strstr(text, ".version")) return INVALID_PTX;
  *module = new Module{text};
  return SUCCESS;
}
API Status cuModuleLoad(Module **, const char *) { return NOT_FOUND; }
API Status cuModuleUnload(Module *) { return SUCCESS; }
API Status cuModuleGetFunction(Function **function, Module *module, const char *name) {
  if (Status status = usable()) return status;
  std::string sizes;
  unsigned most_threads;
  if (!declared(module->ptx, name, sizes, most_threads)) return NOT_FOUND;
  const auto found = kernels().find(name);
  if (found == kernels().end()) return fprintf(stderr, "emulated GPU: %s(%s) is not emulated\n", name, sizes.c_str()), NOT_FOUND;
  std::string own = found->second.parameters;
  for (char &size : own) size = size == 'p' ? '8' : size;
  if (own != sizes) {
    fprintf(stderr, "emulated GPU: %s takes (%s) by its PTX, (%s) here\n", name, sizes.c_str(), own.c_str());
    return NOT_FOUND;
  }
  *function = new Function{&found->second, most_threads};
  return SUCCESS;
}

static char running[128]; // for whoever has to say why a page was touched
static void touched(int, siginfo_t *info, void *) {
  char words[256];
  const int length = snprintf(words, sizeof words, "emulated GPU: %s touches %p, where no buffer is\n", running, info->si_addr);
  if (write(2, words, length) < 0) _exit(126);
  _exit(126);
}

API Status cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned, Stream *stream, void **arguments, void **) {
  if (Status status = usable()) return status;
  const Kernel *kernel = function->kernel;
  if (!gx || !gy || !gz || !bx || gy > 65535 || gz > 65535 || bx > function->most_threads || by != 1 || bz != 1)
    return INVALID_VALUE;
  for (size_t i = 0; i < kernel->parameters.size(); i++)
    if (kernel->parameters[i] == 'p') {
      void *pointer;
      memcpy(&pointer, arguments[i], sizeof pointer);
      if (pointer && !is_in_a_buffer(pointer, 0)) {
        fprintf(stderr, "emulated GPU: argument %zu of %s is not in a buffer\n", i, kernel->name.c_str());
        return ILLEGAL_ADDRESS;
      }
    }
  count_launch(kernel->name);
  static const int watching = [] {
    struct sigaction action = {};
    action.sa_sigaction = touched;
    action.sa_flags = SA_SIGINFO;
    return sigaction(SIGSEGV, &action, nullptr);
  }();
  (void)watching;
  std::function<void()> bound = kernel->bind(arguments);
  submit(stream, [=] {
    static std::mutex one_at_a_time; // shared memory and the places of threads are there once
    std::lock_guard<std::mutex> lock(one_at_a_time);
    snprintf(running, sizeof running, "%s", kernel->name.c_str());
    if (kernel->whole) bound();
    else run_threads(gx, gy, gz, bx, bound);
  });
  return SUCCESS;
}
