// A GPU that is not there: NVIDIA's driver as far as this program calls it, over the host's memory and
// processor, so that all of a program built with CUDA runs where there is no GPU. Compiled together with the other
// sources of this folder, but check.cpp, to one shared library that goes by the names of all of NVIDIA's:
//
//   g++ -std=c++17 -O2 -w -fPIC -shared -pthread -o FOLDER/libcuda.so.1 $(ls *.cpp | grep -v check)
//   for name in libcublas.so.13 libcublasLt.so.13 libcurand.so.10; do ln -s libcuda.so.1 FOLDER/$name; done
//   LD_LIBRARY_PATH=FOLDER crag score --device cuda ...
//
// It is stricter than a GPU where that finds mistakes: buffers begin as NaN, end where a page that cannot be
// touched begins, and are gone once freed; a call from a thread without a context, an argument that is no
// buffer, a kernel that the PTX lacks or declares otherwise are refused; streams run late and in order, each on
// a thread of its own. What it cannot show: races between blocks, anything of time.
//
// Here: devices, context, streams and events; memory.cpp and launches.cpp have the rest of the driver.
//
// Streams go on while the process ends, so what they use is never destroyed.
//
// Settings, in the environment: EMULATED_GPU_MEMORY, bytes (8 GiB); EMULATED_GPU_CAPABILITY (90); EMULATED_GPU_LOST_AFTER, launches and
// products after which every call fails; EMULATED_GPU_LOG=1, what was launched, to stderr at the end.
#include "gpu.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

typedef std::chrono::steady_clock Clock;

uint64_t setting(const char *name, uint64_t otherwise) {
  const char *value = getenv(name);
  return value ? strtoull(value, nullptr, 10) : otherwise;
}

// ---- devices and context ---------------------------------------------------------------------

static int the_context; // its address stands for it
static thread_local void *current_context;
static std::atomic<bool> lost(false);
static std::atomic<uint64_t> started(0);

Status usable() {
  if (lost) return LAUNCH_FAILED;
  return current_context ? SUCCESS : INVALID_CONTEXT;
}

void count_start() {
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
    // compute capability
    case 75: return *value = setting("EMULATED_GPU_CAPABILITY", 90) / 10, SUCCESS;
    case 76: return *value = setting("EMULATED_GPU_CAPABILITY", 90) % 10, SUCCESS;
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

void wait(Stream *stream) { stream->wait(); }

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
