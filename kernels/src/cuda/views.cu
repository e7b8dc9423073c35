// Products and differences of representations, element by element.
#include "common.cuh"

KERNEL(256)
product_f32(const float *a, const float *b, float *out, i64 count) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = a[i] * b[i];
}

KERNEL(256)
abs_diff_f32(const float *a, const float *b, float *out, i64 count) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = fabsf(a[i] - b[i]);
}
