// Self-attention over packed sequences: `qkv` is [T, 3 H], `out` [T, H], token t of a sequence sees the
// tokens of that sequence. Online softmax (arXiv:1805.02867), all statistics and sums in f32.
#include "common.cuh"

// ---- 16-bit types, head width 64: tensor cores -----------------------------------------------
//
// One block takes 64 queries of one sequence and head, one warp 16 of them, over key tiles of 64
// (FlashAttention-2, arXiv:2307.08691). The scores of a tile leave the first product laid out as
// the left operand of the second, so they never pass through shared memory.

constexpr int D = 64, TILE = 64;
constexpr int PAD = 72; // rows 144 bytes apart, so that ldmatrix touches every bank once
constexpr float NEVER = -1e30f; // finite, so that NEVER - NEVER is 0 and not NaN

template <class T>
DEV void attention64(const u16 *qkv, u16 *out, const u32 *offsets, int heads, float scale_log2e) {
  alignas(16) SHARED u16 ks[TILE * PAD];
  alignas(16) SHARED u16 vs[TILE * PAD];
  const int sequence = blockIdx.x / heads, head = blockIdx.x % heads;
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  const int first = offsets[sequence], len = (int)offsets[sequence + 1] - first;
  if ((int)blockIdx.y * TILE >= len) return; // the whole block: no barrier is left waiting
  const int g = lane >> 2, t = lane & 3;
  const int tile_row = blockIdx.y * TILE + warp * 16;
  const bool busy = tile_row < len; // a warp without queries only helps to load
  const int r0 = tile_row + g, r1 = r0 + 8;
  const i64 hidden = (i64)heads * D, row = 3 * hidden;
  const u16 *q = qkv + first * row + head * D, *k = q + hidden, *v = k + hidden;

  u32 qa[4][4]; // 16 x 64 queries as left operands; rows past the end are zero
#pragma unroll
  for (int s = 0; s < 4; s++) {
    const int c = s * 16 + t * 2;
    qa[s][0] = r0 < len ? *(const u32 *)(q + r0 * row + c) : 0u;
    qa[s][1] = r1 < len ? *(const u32 *)(q + r1 * row + c) : 0u;
    qa[s][2] = r0 < len ? *(const u32 *)(q + r0 * row + c + 8) : 0u;
    qa[s][3] = r1 < len ? *(const u32 *)(q + r1 * row + c + 8) : 0u;
  }

  float acc[8][4] = {}, m0 = NEVER, m1 = NEVER, l0 = 0.f, l1 = 0.f;
  for (int base = 0; base < len; base += TILE) {
    SYNC_BLOCK(); // the previous tile has been read
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int chunk = tid + i * 128, r = chunk >> 3, c = (chunk & 7) * 8;
      u32x4 a = {0, 0, 0, 0}, b = {0, 0, 0, 0};
      if (base + r < len) {
        a = *(const u32x4 *)(k + (base + r) * row + c);
        b = *(const u32x4 *)(v + (base + r) * row + c);
      }
      *(u32x4 *)(ks + r * PAD + c) = a;
      *(u32x4 *)(vs + r * PAD + c) = b;
    }
    SYNC_BLOCK();
    if (!busy) continue;

    float sc[8][4] = {}; // 16 queries x 64 keys
    const int mi = lane >> 3, mr = lane & 7;
#pragma unroll
    for (int n = 0; n < 4; n++)
      if (base + n * 16 < len) { // the same for all lanes
#pragma unroll
        for (int s = 0; s < 4; s++) {
          u32 b[4];
          load_matrices(b, ks + (n * 16 + (mi >> 1) * 8 + mr) * PAD + s * 16 + (mi & 1) * 8);
          T::mma(sc[2 * n], qa[s], b[0], b[1]);
          T::mma(sc[2 * n + 1], qa[s], b[2], b[3]);
        }
      }

    float x0 = m0, x1 = m1;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const bool live = base + n * 8 + t * 2 + e < len;
        sc[n][e] = live ? sc[n][e] * scale_log2e : NEVER;
        sc[n][e + 2] = live ? sc[n][e + 2] * scale_log2e : NEVER;
        x0 = fmaxf(x0, sc[n][e]);
        x1 = fmaxf(x1, sc[n][e + 2]);
      }
#pragma unroll
    for (int mask = 1; mask <= 2; mask <<= 1) { // the four lanes that share a row
      x0 = fmaxf(x0, shuffle_xor(x0, mask));
      x1 = fmaxf(x1, shuffle_xor(x1, mask));
    }
    const float f0 = ex2(m0 - x0), f1 = ex2(m1 - x1);
    m0 = x0, m1 = x1;
    l0 *= f0, l1 *= f1;
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        l0 += sc[n][e] = ex2(sc[n][e] - m0);
        l1 += sc[n][e + 2] = ex2(sc[n][e + 2] - m1);
      }
      acc[n][0] *= f0, acc[n][1] *= f0, acc[n][2] *= f1, acc[n][3] *= f1;
    }
#pragma unroll
    for (int s = 0; s < 4; s++) // 16 keys at a time
      if (base + s * 16 < len) {
        const u32 p[4] = {T::pack(sc[2 * s][0], sc[2 * s][1]), T::pack(sc[2 * s][2], sc[2 * s][3]),
                          T::pack(sc[2 * s + 1][0], sc[2 * s + 1][1]), T::pack(sc[2 * s + 1][2], sc[2 * s + 1][3])};
#pragma unroll
        for (int n = 0; n < 4; n++) {
          u32 b[4];
          load_matrices_transposed(b, vs + (s * 16 + (mi & 1) * 8 + mr) * PAD + n * 16 + (mi >> 1) * 8);
          T::mma(acc[2 * n], p, b[0], b[1]);
          T::mma(acc[2 * n + 1], p, b[2], b[3]);
        }
      }
  }
  if (!busy) return;

#pragma unroll
  for (int mask = 1; mask <= 2; mask <<= 1) {
    l0 += shuffle_xor(l0, mask);
    l1 += shuffle_xor(l1, mask);
  }
  l0 = 1.f / l0, l1 = 1.f / l1;
  u16 *o0 = out + (first + r0) * hidden + head * D, *o1 = o0 + 8 * hidden;
#pragma unroll
  for (int n = 0; n < 8; n++) {
    if (r0 < len) *(u32 *)(o0 + n * 8 + t * 2) = T::pack(acc[n][0] * l0, acc[n][1] * l0);
    if (r1 < len) *(u32 *)(o1 + n * 8 + t * 2) = T::pack(acc[n][2] * l1, acc[n][3] * l1);
  }
}

// ---- any type, any head width up to 32 * R: one warp a query and head ------------------------

template <class T, int R>
DEV void attention_row(const typename T::Element *qkv, typename T::Element *out, i64 token, int head, int first,
                       int end, int heads, int width, float scale) {
  const int lane = threadIdx.x & 31;
  const i64 hidden = (i64)heads * width, row = 3 * hidden;
  const typename T::Element *q = qkv + token * row + head * width;
  const typename T::Element *k = qkv + first * row + hidden + head * width;
  float query[R], acc[R] = {}, m = NEVER, l = 0.f;
#pragma unroll
  for (int r = 0; r < R; r++) query[r] = lane + 32 * r < width ? T::load(q + lane + 32 * r) * scale : 0.f;
  for (int j = first; j < end; j++, k += row) {
    float score = 0.f;
#pragma unroll
    for (int r = 0; r < R; r++)
      if (lane + 32 * r < width) score += query[r] * T::load(k + lane + 32 * r);
    score = warp_sum(score);
    const float x = fmaxf(m, score), f = expf(m - x), p = expf(score - x);
    m = x;
    l = l * f + p;
#pragma unroll
    for (int r = 0; r < R; r++)
      if (lane + 32 * r < width) acc[r] = acc[r] * f + p * T::load(k + hidden + lane + 32 * r);
  }
#pragma unroll
  for (int r = 0; r < R; r++)
    if (lane + 32 * r < width) T::store(out + token * hidden + head * width + lane + 32 * r, acc[r] / l);
}

template <class T>
DEV void attention_any(const typename T::Element *qkv, typename T::Element *out, const u32 *offsets, int sequences,
                       int heads, int width, float scale) {
  const i64 task = (i64)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  const i64 token = task / heads;
  if (token >= offsets[sequences]) return; // a whole warp
  const int head = (int)(task % heads);
  int low = 0, high = sequences; // offsets[low] <= token < offsets[high]
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    if (offsets[middle] <= token) low = middle;
    else high = middle;
  }
  const int first = offsets[low], end = offsets[low + 1];
  if (width <= 32) attention_row<T, 1>(qkv, out, token, head, first, end, heads, width, scale);
  else if (width <= 64) attention_row<T, 2>(qkv, out, token, head, first, end, heads, width, scale);
  else if (width <= 128) attention_row<T, 4>(qkv, out, token, head, first, end, heads, width, scale);
  else attention_row<T, 16>(qkv, out, token, head, first, end, heads, width, scale);
}

// ---- entry points ----------------------------------------------------------------------------

#define ATTENTION64(name, T)                                                                              \
  KERNEL(128)                                                                                             \
  attention64_##name(const u16 *qkv, u16 *out, const u32 *offsets, int heads, float scale_log2e) {   \
    attention64<T>(qkv, out, offsets, heads, scale_log2e);                                                \
  }
ATTENTION64(bf16, BF16)
ATTENTION64(f16, F16)

#define ATTENTION(name, T)                                                                                \
  KERNEL(128)                                                                                             \
  attention_##name(const T::Element *qkv, T::Element *out, const u32 *offsets, int sequences,        \
                        int heads, int width, float scale) {                                              \
    attention_any<T>(qkv, out, offsets, sequences, heads, width, scale);                                  \
  }
FOR_EACH_TYPE(ATTENTION)
