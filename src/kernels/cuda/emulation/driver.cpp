// A GPU that is not there: NVIDIA's driver as far as this program calls it, over the host's memory and
// processor, so that all of a program built with CUDA runs where there is no GPU. Compiled together with
// libraries.cpp, kernels.cpp and candle.cpp to one shared library that goes by the names of all of NVIDIA's:
//
//   g++ -std=c++17 -O2 -w -fPIC -shared -pthread -o FOLDER/libcuda.so.1 *.cpp     (but check.cpp)
//   for name in libcublas.so.13 libcublasLt.so.13 libcurand.so.10; do ln -s libcuda.so.1 FOLDER/$name; done
//   LD_LIBRARY_PATH=FOLDER crag score --device cuda ...
//
// It is stricter than a GPU where that finds mistakes: buffers begin as NaN, end where a page that cannot be
// touched begins, and are gone once freed; a call from a thread without a context, an argument that is no
// buffer, a kernel that the PTX lacks or declares otherwise are refused; streams run late and in order, each on
// a thread of its own. What it cannot show: races between blocks, anything of time.
//
// Streams go on while the process ends, so what they use is never destroyed.
//
// Settings, in the environment: EMULATED_GPU_MEMORY, bytes (8 GiB); EMULATED_GPU_LOST_AFTER, launches and
// products after which every call fails; EMULATED_GPU_LOG=1, what was launched, to stderr at the end.
#include "gpu.h"

#include <atomic>
#include <condition_variable>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#define API extern "C"

typedef uint64_t Pointer; // a CUdeviceptr
typedef std::chrono::steady_clock Clock;

static uint64_t setting(const char *name, uint64_t otherwise) {
  const char *value = getenv(name);
  return value ? strtoull(value, nullptr, 10) : otherwise;
}

// ---- context ---------------------------------------------------------------------------------

static int the_context, the_pool; // their addresses stand for them
static thread_local void *current_context;
static std::atomic<bool> lost(false);
static std::atomic<uint64_t> started(0);

Status usable() {
  if (lost) return LAUNCH_FAILED;
  return current_context ? SUCCESS : INVALID_CONTEXT;
}

// Counts what is started, and loses the GPU when that was wished for.
static void count_start() {
  static const uint64_t last = setting("EMULATED_GPU_LOST_AFTER", UINT64_MAX);
  if (++started > last) lost = true;
}

API Status cuInit(unsigned flags) { return flags ? INVALID_VALUE : SUCCESS; }
API Status cuDriverGetVersion(int *version) { return *version = 99000, SUCCESS; }
API Status cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
API Status cuDeviceGet(int *device, int ordinal) { return *device = 0, ordinal == 0 ? SUCCESS : 101; }
API Status cuDeviceGetName(char *name, int length, int) { return snprintf(name, length, "emulated GPU"), SUCCESS; }
API Status cuDeviceGetAttribute(int *value, int attribute, int) {
  switch (attribute) {
    case 16: return *value = 4, SUCCESS;   // multiprocessors
    case 75: return *value = 99, SUCCESS;  // compute capability, more than any program wants
    case 76: return *value = 0, SUCCESS;
    case 115: return *value = 1, SUCCESS;  // memory pools
    default: return fprintf(stderr, "emulated GPU: attribute %d is not known\n", attribute), INVALID_VALUE;
  }
}
API Status cuDevicePrimaryCtxRetain(void **context, int) { return *context = &the_context, SUCCESS; }
API Status cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API Status cuCtxDestroy_v2(void *) { return SUCCESS; }
API Status cuCtxGetCurrent(void **context) { return *context = current_context, SUCCESS; }
API Status cuCtxSetCurrent(void *context) { return current_context = context, SUCCESS; }
API Status cuGetErrorString(Status status, const char **words) {
  switch (status) {
    case OUT_OF_MEMORY: *words = "out of memory"; break;
    case LAUNCH_FAILED: *words = "unspecified launch failure"; break;
    default: *words = "refused by the emulated GPU";
  }
  return SUCCESS;
}

// ---- streams and events ----------------------------------------------------------------------

struct Stream {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> work;
  bool busy = false;

  void run() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      changed.wait(lock, [this] { return !work.empty(); });
      const std::function<void()> next = std::move(work.front());
      work.pop_front();
      busy = true;
      lock.unlock();
      next();
      lock.lock();
      busy = false;
      changed.notify_all();
    }
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this] { return work.empty() && !busy; });
  }
};

struct Event {
  std::mutex mutex;
  std::condition_variable changed;
  unsigned recorded = 0, reached = 0; // how often
  Clock::time_point time;

  void wait(unsigned until) {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this, until] { return reached >= until; });
  }
};

static std::mutex streams_mutex;
static std::vector<Stream *> &streams = *new std::vector<Stream *>;

void submit(Stream *stream, std::function<void()> work) {
  std::lock_guard<std::mutex> lock(stream->mutex);
  stream->work.push_back(std::move(work));
  stream->changed.notify_all();
}

API Status cuStreamCreate(Stream **stream, unsigned) {
  if (Status status = usable()) return status;
  *stream = new Stream;
  std::lock_guard<std::mutex> lock(streams_mutex);
  streams.push_back(*stream);
  std::thread(&Stream::run, *stream).detach();
  return SUCCESS;
}
API Status cuStreamDestroy_v2(Stream *) { return usable(); }
API Status cuStreamIsCapturing(Stream *, int *is) { return *is = 0, usable(); }
API Status cuStreamSynchronize(Stream *stream) {
  if (Status status = usable()) return status;
  stream->wait();
  return usable();
}
API Status cuCtxSynchronize() {
  if (Status status = usable()) return status;
  std::lock_guard<std::mutex> lock(streams_mutex);
  for (Stream *stream : streams) stream->wait();
  return usable();
}
API Status cuEventCreate(Event **event, unsigned) {
  if (Status status = usable()) return status;
  *event = new Event;
  return SUCCESS;
}
API Status cuEventDestroy_v2(Event *) { return SUCCESS; } // a stream may still come to it
API Status cuEventRecord(Event *event, Stream *stream) {
  if (Status status = usable()) return status;
  unsigned number;
  {
    std::lock_guard<std::mutex> lock(event->mutex);
    number = ++event->recorded;
  }
  submit(stream, [event, number] {
    std::lock_guard<std::mutex> lock(event->mutex);
    event->reached = number;
    event->time = Clock::now();
    event->changed.notify_all();
  });
  return SUCCESS;
}
API Status cuEventSynchronize(Event *event) {
  if (Status status = usable()) return status;
  unsigned number;
  {
    std::lock_guard<std::mutex> lock(event->mutex);
    number = event->recorded;
  }
  event->wait(number);
  return usable();
}
API Status cuStreamWaitEvent(Stream *stream, Event *event, unsigned) {
  if (Status status = usable()) return status;
  unsigned number;
  {
    std::lock_guard<std::mutex> lock(event->mutex);
    number = event->recorded;
  }
  submit(stream, [event, number] { event->wait(number); });
  return SUCCESS;
}
API Status cuEventElapsedTime_v2(float *milliseconds, Event *begin, Event *end) {
  begin->wait(begin->recorded);
  end->wait(end->recorded);
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return usable();
}
API Status cuEventElapsedTime(float *milliseconds, Event *begin, Event *end) {
  return cuEventElapsedTime_v2(milliseconds, begin, end);
}

// ---- memory ----------------------------------------------------------------------------------

struct Buffer {
  size_t bytes;
  char *mapped;
  size_t mapped_bytes;
};
static std::mutex memory_mutex;
static std::map<Pointer, Buffer> &buffers = *new std::map<Pointer, Buffer>;
static uint64_t in_use, most_in_use;

static uint64_t total_memory() {
  static const uint64_t bytes = setting("EMULATED_GPU_MEMORY", 8ull << 30);
  return bytes;
}

bool is_in_a_buffer(const void *start, size_t bytes) {
  const Pointer first = (Pointer)start;
  std::lock_guard<std::mutex> lock(memory_mutex);
  auto after = buffers.upper_bound(first);
  if (after == buffers.begin()) return false;
  const auto &buffer = *--after;
  return first - buffer.first <= buffer.second.bytes && bytes <= buffer.second.bytes - (first - buffer.first);
}

static Status allocate(Pointer *pointer, size_t bytes) {
  if (Status status = usable()) return status;
  const size_t page = 4096, kept = (bytes + 255) / 256 * 256, mapped = (kept + page - 1) / page * page;
  std::lock_guard<std::mutex> lock(memory_mutex);
  if (in_use + kept > total_memory()) return OUT_OF_MEMORY;
  void *start = mmap(nullptr, mapped + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED || mprotect((char *)start + mapped, page, PROT_NONE)) return OUT_OF_MEMORY;
  memset(start, 0xff, mapped); // NaN in every float type
  *pointer = (Pointer)start + mapped - kept;
  buffers[*pointer] = {bytes, (char *)start, mapped + page};
  in_use += kept;
  if (in_use > most_in_use) most_in_use = in_use;
  return SUCCESS;
}

static Status forget(Pointer pointer, Buffer &buffer) {
  std::lock_guard<std::mutex> lock(memory_mutex);
  const auto found = buffers.find(pointer);
  if (found == buffers.end()) return INVALID_VALUE;
  buffer = found->second;
  in_use -= (buffer.bytes + 255) / 256 * 256;
  buffers.erase(found);
  return SUCCESS;
}

API Status cuMemAllocAsync(Pointer *pointer, size_t bytes, Stream *) { return allocate(pointer, bytes); }
API Status cuMemAlloc_v2(Pointer *pointer, size_t bytes) { return allocate(pointer, bytes); }
API Status cuMemFreeAsync(Pointer pointer, Stream *stream) {
  if (Status status = usable()) return status;
  Buffer buffer;
  if (Status status = forget(pointer, buffer)) return status;
  submit(stream, [buffer] { munmap(buffer.mapped, buffer.mapped_bytes); });
  return SUCCESS;
}
API Status cuMemFree_v2(Pointer pointer) {
  if (Status status = cuCtxSynchronize()) return status;
  Buffer buffer;
  if (Status status = forget(pointer, buffer)) return status;
  munmap(buffer.mapped, buffer.mapped_bytes);
  return SUCCESS;
}
API Status cuMemGetInfo_v2(size_t *free, size_t *total) {
  if (Status status = usable()) return status;
  std::lock_guard<std::mutex> lock(memory_mutex);
  *total = total_memory();
  *free = *total - in_use;
  return SUCCESS;
}
API Status cuDeviceGetMemPool(void **pool, int) { return *pool = &the_pool, SUCCESS; }
API Status cuMemPoolTrimTo(void *, size_t) { return usable(); }
API Status cuMemPoolSetAttribute(void *, int attribute, void *) { return attribute == 4 ? SUCCESS : INVALID_VALUE; }
API Status cuMemPoolGetAttribute(void *, int attribute, void *value) {
  if (attribute != 5 && attribute != 7) return INVALID_VALUE; // reserved, used: nothing is held for reuse
  std::lock_guard<std::mutex> lock(memory_mutex);
  *(uint64_t *)value = in_use;
  return SUCCESS;
}

API Status cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t bytes, Stream *stream) {
  if (Status status = usable()) return status;
  if (!is_in_a_buffer((void *)to, bytes)) return INVALID_VALUE;
  // Up to 64 KiB the driver takes over at once; of more it returns when the stream has come to it.
  if (bytes <= 64 * 1024) {
    const std::vector<char> taken((const char *)from, (const char *)from + bytes);
    submit(stream, [to, taken] { memcpy((void *)to, taken.data(), taken.size()); });
    return SUCCESS;
  }
  submit(stream, [to, from, bytes] { memcpy((void *)to, from, bytes); });
  stream->wait();
  return usable();
}
API Status cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t bytes, Stream *stream) {
  if (Status status = usable()) return status;
  if (!is_in_a_buffer((void *)from, bytes)) return INVALID_VALUE;
  submit(stream, [to, from, bytes] { memcpy(to, (void *)from, bytes); });
  stream->wait();
  return usable();
}
API Status cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, Stream *stream) {
  if (Status status = usable()) return status;
  if (!is_in_a_buffer((void *)from, bytes) || !is_in_a_buffer((void *)to, bytes)) return INVALID_VALUE;
  submit(stream, [to, from, bytes] { memmove((void *)to, (void *)from, bytes); });
  return SUCCESS;
}
API Status cuMemcpyPeerAsync(Pointer to, void *, Pointer from, void *, size_t bytes, Stream *stream) {
  return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}
API Status cuMemsetD8Async(Pointer to, unsigned char value, size_t bytes, Stream *stream) {
  if (Status status = usable()) return status;
  if (!is_in_a_buffer((void *)to, bytes)) return INVALID_VALUE;
  submit(stream, [to, value, bytes] { memset((void *)to, value, bytes); });
  return SUCCESS;
}

// ---- modules and launches --------------------------------------------------------------------

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
  fprintf(stderr, "emulated GPU: at most %llu bytes\n", (unsigned long long)most_in_use);
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
