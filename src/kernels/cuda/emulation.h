// What common.cuh takes from CUDA, for the host: one OS thread stands for each CUDA thread of a
// block, barriers keep a warp together where it exchanges values, and ldmatrix and mma follow the
// fragment layouts of the PTX manual (sections 9.7.15.5.15 and 9.7.14.5.8).
#pragma once
#include <barrier>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#define DEV static inline
#define MEMBER inline
#define KERNEL(threads) extern "C" void
#define SHARED static
#define SYNC_BLOCK() emulated_block->arrive_and_wait()

struct Index {
  unsigned x, y, z;
};
static thread_local Index threadIdx;
static Index blockIdx, blockDim;

struct Lane { // what one lane shows the others of its warp
  const u16 *row;
  u32 a[4], b[2];
  float value;
};
static Lane emulated_lanes[32][32];
static std::unique_ptr<std::barrier<>> emulated_block, emulated_warps[32];
#define LANES emulated_lanes[threadIdx.x >> 5]
#define LANE (threadIdx.x & 31)
static void warp_wait() { emulated_warps[threadIdx.x >> 5]->arrive_and_wait(); }

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
  LANES[LANE].value = x;
  warp_wait();
  const float y = LANES[LANE ^ mask].value;
  warp_wait();
  return y;
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
