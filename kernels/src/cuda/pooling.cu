// From hidden states [T, H] of packed sequences to one f32 vector a sequence.
#include "common.cuh"

// scores[t][head] = hidden[t] . keys[head], one warp a token.
template <class T>
DEV void pool_scores(const typename T::Element *hidden, const float *keys, float *scores, i64 tokens, int heads,
                     int width, int vector) {
  const i64 token = (i64)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (token >= tokens) return; // a whole warp
  const int lane = threadIdx.x & 31;
  const typename T::Element *x = hidden + token * width;
  for (int head = 0; head < heads; head++) { // the row is in L1 after the first head
    const float *key = keys + (i64)head * width;
    float sum = 0.f;
    if (vector) {
      for (int c = lane * 8; c < width; c += 256) {
        float a[8], b[8];
        T::load8(x + c, a);
        F32::load8(key + c, b);
#pragma unroll
        for (int e = 0; e < 8; e++) sum += a[e] * b[e];
      }
    } else {
      for (int c = lane; c < width; c += 32) sum += T::load(x + c) * key[c];
    }
    sum = warp_sum(sum);
    if (lane == 0) scores[token * heads + head] = sum;
  }
}

// out[head][sequence] = softmax-weighted mean of the sequence's hidden states, one block each.
// Every warp forms maximum and sum for itself: fewer instructions than a barrier would cost.
template <class T>
DEV void pool_weighted(const typename T::Element *hidden, const float *scores, float *out, const u32 *offsets,
                       int heads, int width, int vector) {
  const int sequence = blockIdx.x / heads, head = blockIdx.x % heads, lane = threadIdx.x & 31;
  const i64 first = offsets[sequence], end = offsets[sequence + 1];
  float most = -1e30f, sum = 0.f;
  for (i64 t = first + lane; t < end; t += 32) most = fmaxf(most, scores[t * heads + head]);
  most = warp_max(most);
  for (i64 t = first + lane; t < end; t += 32) sum += expf(scores[t * heads + head] - most);
  const float scale = 1.f / warp_sum(sum);
  out += ((i64)head * (gridDim.x / heads) + sequence) * width;
  if (vector) {
    for (int c = threadIdx.x * 8; c < width; c += blockDim.x * 8) {
      float acc[8] = {};
      for (i64 t = first; t < end; t++) {
        const float p = expf(scores[t * heads + head] - most);
        float v[8];
        T::load8(hidden + t * width + c, v);
#pragma unroll
        for (int e = 0; e < 8; e++) acc[e] += p * v[e];
      }
#pragma unroll
      for (int e = 0; e < 8; e++) acc[e] *= scale;
      F32::store8(out + c, acc);
    }
  } else {
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
      float acc = 0.f;
      for (i64 t = first; t < end; t++) acc += expf(scores[t * heads + head] - most) * T::load(hidden + t * width + c);
      out[c] = acc * scale;
    }
  }
}

// Mean over the first `limit` tokens of each sequence (1: the first token), one block a sequence.
template <class T>
DEV void pool_mean(const typename T::Element *hidden, float *out, const u32 *offsets, int width, int vector, int limit) {
  const i64 first = offsets[blockIdx.x];
  i64 end = offsets[blockIdx.x + 1];
  if (end - first > limit) end = first + limit;
  const float count = (float)(end - first);
  out += (i64)blockIdx.x * width;
  if (vector) {
    for (int c = threadIdx.x * 8; c < width; c += blockDim.x * 8) {
      float acc[8] = {};
      for (i64 t = first; t < end; t++) {
        float v[8];
        T::load8(hidden + t * width + c, v);
#pragma unroll
        for (int e = 0; e < 8; e++) acc[e] += v[e];
      }
#pragma unroll
      for (int e = 0; e < 8; e++) acc[e] /= count;
      F32::store8(out + c, acc);
    }
  } else {
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
      float acc = 0.f;
      for (i64 t = first; t < end; t++) acc += T::load(hidden + t * width + c);
      out[c] = acc / count;
    }
  }
}

#define POOL(name, T)                                                                                      \
  KERNEL(128)                                                                                              \
  pool_scores_##name(const T::Element *hidden, const float *keys, float *scores, i64 tokens,          \
                          int heads, int width, int vector) {                                              \
    pool_scores<T>(hidden, keys, scores, tokens, heads, width, vector);                                    \
  }                                                                                                        \
  KERNEL(128)                                                                                              \
  pool_weighted_##name(const T::Element *hidden, const float *scores, float *out, const u32 *offsets, \
                            int heads, int width, int vector) {                                            \
    pool_weighted<T>(hidden, scores, out, offsets, heads, width, vector);                                  \
  }                                                                                                        \
  KERNEL(128)                                                                                              \
  pool_mean_##name(const T::Element *hidden, float *out, const u32 *offsets, int width, int vector,   \
                        int limit) {                                                                       \
    pool_mean<T>(hidden, out, offsets, width, vector, limit);                                              \
  }
FOR_EACH_TYPE(POOL)
