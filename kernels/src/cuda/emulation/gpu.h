// What the parts of an emulated GPU share: its memory, its streams and its kernels (see driver.cpp).
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#define API extern "C"

struct Stream;
typedef int Status; // a CUresult of the driver's

constexpr Status SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_PTX = 218,
                 NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, LAUNCH_FAILED = 719;

// Whether the calling thread may use the GPU: it has made a context current, and the GPU is not lost.
Status usable();

// A number in the environment.
uint64_t setting(const char *name, uint64_t otherwise);

// Loses the GPU after as many starts as were wished for.
void count_start();

// Whether all bytes from `start` on are of one buffer that is not freed.
bool is_in_a_buffer(const void *start, size_t bytes);

// Bytes in buffers, at the most so far.
uint64_t most_memory_in_use();

// Has the stream's thread do it, after all that it was given before.
void submit(Stream *stream, std::function<void()> work);

// Waits until the stream has nothing to do.
void wait(Stream *stream);
API Status cuCtxSynchronize();

// A kernel: how it takes its arguments, and what to call.
struct Kernel {
  std::string name;
  std::string parameters; // of each the size in bytes, as a digit; 'p' for a pointer
  bool whole;             // what `bind` returns runs the whole grid, else one thread
  // Copies the arguments, as cuLaunchKernel does.
  std::function<std::function<void()>(void **)> bind;
};

// Kernels of this program and, of candle's, those that it uses, by name.
std::map<std::string, Kernel> &kernels();

template <class... A, size_t... I>
Kernel kernel(const char *name, void (*function)(A...), bool whole, std::index_sequence<I...>) {
  const char sizes[] = {(std::is_pointer<A>::value ? 'p' : (char)('0' + sizeof(A)))..., '\0'};
  return {name, sizes, whole, [function](void **arguments) {
    const std::tuple<A...> copies(*(A *)arguments[I]...);
    return std::function<void()>([function, copies] { std::apply(function, copies); });
  }};
}
template <class... A>
bool add_kernel(const char *name, void (*function)(A...), bool whole) {
  return kernels().emplace(name, kernel(name, function, whole, std::index_sequence_for<A...>())).second;
}

// Runs a kernel of which every thread of every block is called.
void run_threads(unsigned x, unsigned y, unsigned z, unsigned threads, const std::function<void()> &kernel);

// To be called with every kernel and product that is started.
void count_launch(const std::string &name);
