// Memory of an emulated GPU (see driver.cpp): the host's, a mapping for each buffer.
#include "gpu.h"

#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include <sys/mman.h>

typedef uint64_t Pointer; // a CUdeviceptr

static int the_pool; // its address stands for it

struct Buffer {
  size_t bytes;
  char *mapped;
  size_t mapped_bytes;
};
static std::mutex memory_mutex;
static std::map<Pointer, Buffer> &buffers = *new std::map<Pointer, Buffer>;
static uint64_t in_use, most_in_use;

uint64_t most_memory_in_use() { return most_in_use; }

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
  wait(stream);
  return usable();
}
API Status cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t bytes, Stream *stream) {
  if (Status status = usable()) return status;
  if (!is_in_a_buffer((void *)from, bytes)) return INVALID_VALUE;
  submit(stream, [to, from, bytes] { memcpy(to, (void *)from, bytes); });
  wait(stream);
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
