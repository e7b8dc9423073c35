// The second half of a bilinear fusion: out[n][o] = transformed[n][o] . x1[n] + bias[o], one warp a result.
#include "common.cuh"

KERNEL(128)
inner_products_f32(const float *transformed, const float *x1, const float *bias, float *out, i64 results, int outputs,
                   int width, int vector) {
  const i64 result = (i64)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (result >= results) return; // a whole warp
  const int lane = threadIdx.x & 31;
  const float *row = transformed + result * width, *x = x1 + result / outputs * width;
  float sum = 0.f;
  if (vector) {
    for (int c = lane * 8; c < width; c += 256) {
      float a[8], b[8];
      F32::load8(row + c, a);
      F32::load8(x + c, b);
#pragma unroll
      for (int e = 0; e < 8; e++) sum += a[e] * b[e];
    }
  } else {
    for (int c = lane; c < width; c += 32) sum += row[c] * x[c];
  }
  sum = warp_sum(sum);
  if (lane == 0) out[result] = sum + (bias ? bias[result % outputs] : 0.f);
}
