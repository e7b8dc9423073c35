// What common.cuh takes from CUDA, for the host: each CUDA thread of a block runs on a stack of its own
// and gives way to the next at a barrier; barriers keep a warp together where it exchanges values, and
// ldmatrix and mma follow the fragment layouts of the PTX manual (sections 9.7.15.5.15 and 9.7.14.5.8).
// All of it runs on whatever one host thread calls `run_grid`.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include <ucontext.h>

#define DEV static inline
#define MEMBER inline
#define KERNEL(threads) extern "C" void
#define SHARED static
#define SYNC_BLOCK() emulated_wait(emulated_block)

struct Index {
  unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

// ---- threads ---------------------------------------------------------------------------------

constexpr unsigned MOST_THREADS = 1024;
constexpr size_t STACK = 64 * 1024;

struct Barrier { // a finished thread holds none up
  unsigned members, waiting, passed;
};
static Barrier emulated_block, emulated_warps[MOST_THREADS / 32];

// Where a thread gave way. By hand where that can be: ucontext asks the kernel for the signal mask at each change.
#ifdef __x86_64__
typedef void **Place; // its stack, with the registers on top that a function has to keep
extern "C" __attribute__((visibility("hidden"))) void emulated_change(Place *from, Place to);
asm("emulated_change:\n"
    "  push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    "  mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
    "  pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
    "  ret\n");
#define CHANGE(from, to) emulated_change(&(from), to)
static void begin(Place &place, char *stack, void (*function)()) {
  place = (Place)(stack + STACK) - 2; // as if `function` had been called
  place[0] = (void *)function, place[1] = nullptr;
  place -= 6;
}
#else
typedef ucontext_t Place;
#define CHANGE(from, to) swapcontext(&(from), &(to))
static void begin(Place &place, char *stack, void (*function)()) {
  getcontext(&place);
  place.uc_stack.ss_sp = stack, place.uc_stack.ss_size = STACK, place.uc_link = nullptr;
  makecontext(&place, function, 0);
}
#endif

struct Thread {
  Place place;
  bool finished;
};
static std::vector<Thread> &emulated_threads = *new std::vector<Thread>;
static Place emulated_caller;
static const std::function<void()> *emulated_kernel;
static unsigned emulated_running, emulated_alive, emulated_idle; // idle: turns since anything went on
static unsigned emulated_step; // to the next thread: upwards in one block, downwards in the other, so that order is no help

static void go_to(unsigned thread) {
  const unsigned from = threadIdx.x;
  threadIdx.x = thread;
  CHANGE(emulated_threads[from].place, emulated_threads[thread].place);
}

static void give_way() {
  if (++emulated_idle > 4 * emulated_running) {
    fprintf(stderr, "emulated GPU: the threads of a block wait for each other for ever\n");
    abort();
  }
  unsigned next = threadIdx.x;
  do next = (next + emulated_step) % emulated_running;
  while (emulated_threads[next].finished);
  if (next != threadIdx.x) go_to(next);
}

static void open_if_all_wait(Barrier &barrier) {
  if (barrier.waiting < barrier.members || !barrier.members) return;
  barrier.waiting = 0;
  barrier.passed++;
  emulated_idle = 0;
}

static void emulated_wait(Barrier &barrier) {
  const unsigned passed = barrier.passed;
  barrier.waiting++;
  open_if_all_wait(barrier);
  while (barrier.passed == passed) give_way();
}

// The bottom of every stack: one kernel after another, for as long as the process lives.
static void emulated_thread() {
  for (;;) {
    (*emulated_kernel)();
    const unsigned mine = threadIdx.x;
    emulated_threads[mine].finished = true;
    emulated_idle = 0;
    for (Barrier *barrier : {&emulated_block, &emulated_warps[mine >> 5]}) {
      barrier->members--;
      open_if_all_wait(*barrier);
    }
    if (--emulated_alive) give_way();
    else CHANGE(emulated_threads[mine].place, emulated_caller);
  }
}

static void start_threads(unsigned count) {
  emulated_threads.reserve(MOST_THREADS); // their places must not move
  while (emulated_threads.size() < count) {
    emulated_threads.emplace_back();
    begin(emulated_threads.back().place, (char *)aligned_alloc(64, STACK), emulated_thread);
  }
}

// ---- what lanes show each other --------------------------------------------------------------

struct Lane {
  const u16 *row;
  u32 a[4], b[2];
  // By turns: until all lanes have come to the next exchange, none has left the one before.
  float value[2];
  unsigned turn;
};
static Lane emulated_lanes[MOST_THREADS / 32][32];
#define LANES emulated_lanes[threadIdx.x >> 5]
#define LANE (threadIdx.x & 31)
static void warp_wait() { emulated_wait(emulated_warps[threadIdx.x >> 5]); }

// ---- grids -----------------------------------------------------------------------------------

static void run_block(unsigned threads) {
  emulated_running = emulated_alive = threads;
  emulated_idle = 0;
  emulated_block = {threads, 0, 0};
  for (unsigned w = 0; w * 32 < threads; w++) emulated_warps[w] = {threads - w * 32 < 32 ? threads - w * 32 : 32, 0, 0};
  for (unsigned t = 0; t < threads; t++) emulated_threads[t].finished = false, emulated_lanes[t >> 5][t & 31].turn = 0;
  const bool upwards = (blockIdx.x + blockIdx.y) % 2 == 0;
  emulated_step = upwards ? 1 : threads - 1;
  threadIdx = {upwards ? 0 : threads - 1, 0, 0};
  CHANGE(emulated_caller, emulated_threads[threadIdx.x].place);
}

// Starts `kernel` once for every thread of every block, blocks one after another, the last first.
static void run_grid(Index grid, unsigned threads, const std::function<void()> &kernel) {
  if (threads > MOST_THREADS) {
    fprintf(stderr, "emulated GPU: a block of %u threads\n", threads);
    abort();
  }
  start_threads(threads);
  emulated_kernel = &kernel;
  gridDim = grid;
  blockDim = {threads, 1, 1};
  for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
      for (blockIdx.x = grid.x; blockIdx.x-- > 0;) run_block(threads);
}

// ---- instructions ----------------------------------------------------------------------------

DEV float bits_to_float(u32 x) {
  float y;
  memcpy(&y, &x, 4);
  return y;
}
DEV u32 float_to_bits(float x) {
  u32 y;
  memcpy(&y, &x, 4);
  return y;
}
DEV float shuffle_xor(float x, int mask) {
  Lane &mine = LANES[LANE];
  const unsigned turn = mine.turn ^= 1;
  mine.value[turn] = x;
  warp_wait();
  return LANES[LANE ^ mask].value[turn];
}
DEV float ex2(float x) { return exp2f(x); }

DEV u16 to_bf16(float x) {
  const u32 u = float_to_bits(x);
  if (x != x) return 0x7fff;
  return (u16)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
DEV u32 pack_bf16(float lo, float hi) { return to_bf16(lo) | (u32)to_bf16(hi) << 16; }
DEV u16 to_f16(float x) {
  const _Float16 h = (_Float16)x;
  u16 y;
  memcpy(&y, &h, 2);
  return y;
}
DEV float f16_to_float(u16 x) {
  _Float16 h;
  memcpy(&h, &x, 2);
  return (float)h;
}
DEV u32 pack_f16(float lo, float hi) { return to_f16(lo) | (u32)to_f16(hi) << 16; }
DEV float bf16_to_float(u16 x) { return bits_to_float((u32)x << 16); }

DEV void show_row(const u16 *p) {
  if ((size_t)p & 15) {
    puts("ldmatrix: a row is not 16-byte aligned");
    exit(1);
  }
  LANES[LANE].row = p;
  warp_wait();
}
DEV void load_matrices(u32 r[4], const u16 *p) {
  show_row(p);
  const int g = LANE >> 2, t = LANE & 3;
  for (int i = 0; i < 4; i++) memcpy(&r[i], LANES[8 * i + g].row + 2 * t, 4);
  warp_wait();
}
DEV void load_matrices_transposed(u32 r[4], const u16 *p) {
  show_row(p);
  const int g = LANE >> 2, t = LANE & 3;
  for (int i = 0; i < 4; i++) r[i] = LANES[8 * i + 2 * t].row[g] | (u32)LANES[8 * i + 2 * t + 1].row[g] << 16;
  warp_wait();
}
template <float (*VALUE)(u16)>
DEV void emulated_mma(float c[4], const u32 a[4], u32 b0, u32 b1) {
  Lane &mine = LANES[LANE];
  memcpy(mine.a, a, 16);
  mine.b[0] = b0, mine.b[1] = b1;
  warp_wait();
  const int g = LANE >> 2, t = LANE & 3;
  for (int e = 0; e < 4; e++) {
    const int row = g + 8 * (e >> 1), column = 2 * t + (e & 1);
    for (int k = 0; k < 16; k++) {
      const u32 x = LANES[(row & 7) * 4 + (k & 7) / 2].a[(row >> 3) + 2 * (k >> 3)];
      const u32 y = LANES[column * 4 + (k & 7) / 2].b[k >> 3];
      c[e] += VALUE((u16)(k & 1 ? x >> 16 : x)) * VALUE((u16)(k & 1 ? y >> 16 : y));
    }
  }
  warp_wait();
}
DEV void mma_bf16(float c[4], const u32 a[4], u32 b0, u32 b1) { emulated_mma<bf16_to_float>(c, a, b0, b1); }
DEV void mma_f16(float c[4], const u32 a[4], u32 b0, u32 b1) { emulated_mma<f16_to_float>(c, a, b0, b1); }
