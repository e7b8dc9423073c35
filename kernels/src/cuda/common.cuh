// Element types, 16-byte accesses and warp sums shared by the kernels in this folder.
//
// Nothing is included from the toolkit: the text depends on nvcc alone, not on its header versions,
// and with HOST_EMULATION the same arithmetic compiles for the CPU (see emulation/).
#pragma once

typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64; // offsets: T * 3 H passes 2^31 elements well before memory runs out

struct alignas(16) u32x4 {
  u32 x, y, z, w;
};
struct alignas(16) f32x4 {
  float x, y, z, w;
};

#ifdef HOST_EMULATION
#include "emulation/cuda.h"
#else
#define DEV static __device__ __forceinline__
#define MEMBER __device__ __forceinline__
#define SHARED __shared__
#define SYNC_BLOCK() __syncthreads()
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

DEV float bits_to_float(u32 x) { return __uint_as_float(x); }
DEV float shuffle_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEV float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEV u32 pack_bf16(float lo, float hi) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
DEV u32 pack_f16(float lo, float hi) {
  u32 r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
DEV float f16_to_float(u16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
DEV u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }
// Four 8x8 matrices of 16-bit elements; lanes 8 i to 8 i + 7 give the row addresses of matrix i.
DEV void load_matrices(u32 r[4], const u16 *p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p)));
}
DEV void load_matrices_transposed(u32 r[4], const u16 *p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p)));
}
DEV void mma_bf16(float c[4], const u32 a[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEV void mma_f16(float c[4], const u32 a[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

DEV float warp_sum(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) x += shuffle_xor(x, mask);
  return x;
}
DEV float warp_max(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) x = fmaxf(x, shuffle_xor(x, mask));
  return x;
}

// One struct an element type. load8/store8 move eight elements and need 16-byte alignment.
struct F32 {
  typedef float Element;
  DEV float load(const float *p) { return *p; }
  DEV void store(float *p, float v) { *p = v; }
  DEV void load8(const float *p, float v[8]) {
    const f32x4 a = ((const f32x4 *)p)[0], b = ((const f32x4 *)p)[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
  }
  DEV void store8(float *p, const float v[8]) {
    const f32x4 a = {v[0], v[1], v[2], v[3]}, b = {v[4], v[5], v[6], v[7]};
    ((f32x4 *)p)[0] = a;
    ((f32x4 *)p)[1] = b;
  }
};

struct BF16 {
  typedef u16 Element;
  DEV u32 pack(float lo, float hi) { return pack_bf16(lo, hi); }
  DEV void mma(float c[4], const u32 a[4], u32 b0, u32 b1) { mma_bf16(c, a, b0, b1); }
  DEV float load(const u16 *p) { return bits_to_float((u32)*p << 16); }
  DEV void store(u16 *p, float v) { *p = (u16)pack_bf16(v, v); }
  DEV void unpack(u32 x, float v[2]) {
    v[0] = bits_to_float(x << 16);
    v[1] = bits_to_float(x & 0xffff0000u);
  }
  DEV void load8(const u16 *p, float v[8]) {
    const u32x4 a = *(const u32x4 *)p;
    unpack(a.x, v), unpack(a.y, v + 2), unpack(a.z, v + 4), unpack(a.w, v + 6);
  }
  DEV void store8(u16 *p, const float v[8]) {
    const u32x4 a = {pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7])};
    *(u32x4 *)p = a;
  }
};

struct F16 {
  typedef u16 Element;
  DEV u32 pack(float lo, float hi) { return pack_f16(lo, hi); }
  DEV void mma(float c[4], const u32 a[4], u32 b0, u32 b1) { mma_f16(c, a, b0, b1); }
  DEV float load(const u16 *p) { return f16_to_float(*p); }
  DEV void store(u16 *p, float v) { *p = (u16)pack_f16(v, v); }
  DEV void unpack(u32 x, float v[2]) {
    v[0] = f16_to_float((u16)(x & 0xffffu));
    v[1] = f16_to_float((u16)(x >> 16));
  }
  DEV void load8(const u16 *p, float v[8]) {
    const u32x4 a = *(const u32x4 *)p;
    unpack(a.x, v), unpack(a.y, v + 2), unpack(a.z, v + 4), unpack(a.w, v + 6);
  }
  DEV void store8(u16 *p, const float v[8]) {
    const u32x4 a = {pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7])};
    *(u32x4 *)p = a;
  }
};

// The numbers are those of `activation_code` in rows.rs.
enum { IDENTITY = 0, GELU = 1, GELU_TANH = 2, RELU = 3, TANH = 4 };

template <int A>
DEV float activate(float x) {
  if (A == GELU) return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
  if (A == GELU_TANH) return 0.5f * x * (1.f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
  if (A == RELU) return x < 0.f ? 0.f : x; // not fmaxf, which would turn NaN into 0
  if (A == TANH) return tanhf(x);
  return x;
}

// Calls F<T, activation>(arguments...): one branch a thread instead of one an element.
#define WITH_ACTIVATION(activation, F, ...)              \
  switch (activation) {                                  \
    case GELU: F<T, GELU>(__VA_ARGS__); break;           \
    case GELU_TANH: F<T, GELU_TANH>(__VA_ARGS__); break; \
    case RELU: F<T, RELU>(__VA_ARGS__); break;           \
    case TANH: F<T, TANH>(__VA_ARGS__); break;           \
    default: F<T, IDENTITY>(__VA_ARGS__);                \
  }

#define FOR_EACH_TYPE(M) M(f32, F32) M(bf16, BF16) M(f16, F16)
