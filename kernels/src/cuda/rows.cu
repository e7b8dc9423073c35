// Passes over rows: bias + activation, LayerNorm, bias + residual + LayerNorm, and
// embedding + LayerNorm. Statistics are f32, the mean first and the squared deviations second.
#include "common.cuh"

// ---- bias + activation, in place -------------------------------------------------------------

constexpr int ROWS = 2; // rows a block: two independent 16-byte loads in flight a thread

template <class T, int A>
DEV void bias_activation_vector(typename T::Element *x, const float *bias, i64 rows, int width) {
  const i64 first = (i64)blockIdx.x * ROWS;
#pragma unroll 1
  for (int column = threadIdx.x * 8; column < width; column += blockDim.x * 8) {
    float b[8] = {}, v[ROWS][8];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
      if (first + r < rows) T::load8(x + (first + r) * width + column, v[r]);
    if (bias) F32::load8(bias + column, b);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
      if (first + r < rows) {
#pragma unroll
        for (int e = 0; e < 8; e++) v[r][e] = activate<A>(v[r][e] + b[e]);
        T::store8(x + (first + r) * width + column, v[r]);
      }
  }
}

template <class T, int A>
DEV void bias_activation_scalar(typename T::Element *x, const float *bias, i64 rows, int width) {
#pragma unroll 1
  for (int r = 0; r < ROWS; r++) {
    const i64 row = (i64)blockIdx.x * ROWS + r;
    if (row >= rows) return;
#pragma unroll 1
    for (int column = threadIdx.x; column < width; column += blockDim.x)
      T::store(x + row * width + column,
               activate<A>(T::load(x + row * width + column) + (bias ? bias[column] : 0.f)));
  }
}

template <class T>
DEV void bias_activation(typename T::Element *x, const float *bias, i64 rows, int width, int activation) {
  if (width % 8 == 0) {
    WITH_ACTIVATION(activation, bias_activation_vector, x, bias, rows, width)
  } else {
    WITH_ACTIVATION(activation, bias_activation_scalar, x, bias, rows, width)
  }
}

// ---- LayerNorm, one warp a row ---------------------------------------------------------------

struct Norm {
  const float *weight, *bias;
  float eps;
};

// What a row is made of before it is normalised; each source can give eight elements or one.

template <class T>
struct Plain {
  const typename T::Element *x;
  MEMBER void load8(i64 row, int width, int column, float v[8]) const { T::load8(x + row * width + column, v); }
  MEMBER float load(i64 row, int width, int column) const { return T::load(x + row * width + column); }
};

template <class T>
struct WithResidual {
  const typename T::Element *x, *residual;
  const float *bias; // null for none
  MEMBER void load8(i64 row, int width, int column, float v[8]) const {
    float r[8], b[8] = {};
    T::load8(x + row * width + column, v);
    T::load8(residual + row * width + column, r);
    if (bias) F32::load8(bias + column, b);
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] = v[e] + b[e] + r[e];
  }
  MEMBER float load(i64 row, int width, int column) const {
    const float b = bias ? bias[column] : 0.f;
    return T::load(x + row * width + column) + b + T::load(residual + row * width + column);
  }
};

// A token id outside the vocabulary gives a row of NaN: it can neither read foreign memory nor pass unseen.
template <class T>
struct Embedding {
  const u32 *ids, *positions;
  const typename T::Element *word, *position;
  u32 vocabulary;
  MEMBER void load8(i64 row, int width, int column, float v[8]) const {
    const u32 id = ids[row];
    float p[8];
    T::load8(position + (i64)positions[row] * width + column, p);
    if (id < vocabulary) {
      T::load8(word + (i64)id * width + column, v);
    } else {
      for (int e = 0; e < 8; e++) v[e] = bits_to_float(0x7fc00000u);
    }
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] += p[e];
  }
  MEMBER float load(i64 row, int width, int column) const {
    const u32 id = ids[row];
    const float w = id < vocabulary ? T::load(word + (i64)id * width + column) : bits_to_float(0x7fc00000u);
    return w + T::load(position + (i64)positions[row] * width + column);
  }
};

// The row stays in registers: lane l holds chunks l, l + 32, ... of eight elements. EXACT: the
// width is CHUNKS * 256, so no chunk needs a test and all loads of a row are in flight at once.
template <class T, int CHUNKS, bool EXACT, class Source>
DEV void normalise_in_registers(const Source &source, typename T::Element *out, i64 row, int width, const Norm &norm) {
  const int lane = threadIdx.x & 31;
  float v[CHUNKS][8], sum = 0.f, squares = 0.f;
#pragma unroll
  for (int i = 0; i < CHUNKS; i++) {
    const int column = (lane + 32 * i) * 8;
    if (EXACT || column < width) source.load8(row, width, column, v[i]);
  }
#pragma unroll
  for (int i = 0; i < CHUNKS; i++)
    if (EXACT || (lane + 32 * i) * 8 < width) {
#pragma unroll
      for (int e = 0; e < 8; e++) sum += v[i][e];
    }
  const float mean = warp_sum(sum) / width;
#pragma unroll
  for (int i = 0; i < CHUNKS; i++)
    if (EXACT || (lane + 32 * i) * 8 < width) {
#pragma unroll
      for (int e = 0; e < 8; e++) squares += (v[i][e] - mean) * (v[i][e] - mean);
    }
  const float scale = 1.f / sqrtf(warp_sum(squares) / width + norm.eps);
#pragma unroll
  for (int i = 0; i < CHUNKS; i++) {
    const int column = (lane + 32 * i) * 8;
    if (EXACT || column < width) {
      float w[8], b[8];
      F32::load8(norm.weight + column, w);
      F32::load8(norm.bias + column, b);
#pragma unroll
      for (int e = 0; e < 8; e++) v[i][e] = (v[i][e] - mean) * scale * w[e] + b[e];
      T::store8(out + row * width + column, v[i]);
    }
  }
}

// Any width, any alignment: the row is read three times. `out` may be what the source reads, since
// each lane writes only elements that it alone reads, after its last other read.
template <class T, class Source>
DEV void normalise_from_memory(const Source &source, typename T::Element *out, i64 row, int width, const Norm &norm) {
  const int lane = threadIdx.x & 31;
  float sum = 0.f, squares = 0.f;
#pragma unroll 1
  for (int c = lane; c < width; c += 32) sum += source.load(row, width, c);
  const float mean = warp_sum(sum) / width;
#pragma unroll 1
  for (int c = lane; c < width; c += 32) {
    const float d = source.load(row, width, c) - mean;
    squares += d * d;
  }
  const float scale = 1.f / sqrtf(warp_sum(squares) / width + norm.eps);
#pragma unroll 1
  for (int c = lane; c < width; c += 32)
    T::store(out + row * width + c, (source.load(row, width, c) - mean) * scale * norm.weight[c] + norm.bias[c]);
}

// `vector`: every pointer and the width allow 16-byte accesses.
template <class T, class Source>
DEV void normalise(const Source &source, typename T::Element *out, i64 rows, int width, int vector, const Norm &norm) {
  const i64 row = (i64)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (row >= rows) return; // a whole warp
  if (!vector || width > 1024) {
    normalise_from_memory<T>(source, out, row, width, norm);
  } else if (width == 768) {
    normalise_in_registers<T, 3, true>(source, out, row, width, norm);
  } else if (width <= 256) {
    normalise_in_registers<T, 1, false>(source, out, row, width, norm);
  } else {
    normalise_in_registers<T, 4, false>(source, out, row, width, norm);
  }
}

// ---- entry points ----------------------------------------------------------------------------

#define BIAS_ACTIVATION(name, T)                                                                           \
  KERNEL(512)                                                                                              \
  bias_activation_##name(T::Element *x, const float *bias, i64 rows, int width, int activation) {     \
    bias_activation<T>(x, bias, rows, width, activation);                                                  \
  }
FOR_EACH_TYPE(BIAS_ACTIVATION)

#define LAYER_NORM(name, T)                                                                                \
  KERNEL(128)                                                                                              \
  layer_norm_##name(const T::Element *x, T::Element *out, i64 rows, int width, int vector,            \
                         const float *weight, const float *bias, float eps) {                              \
    normalise<T>(Plain<T>{x}, out, rows, width, vector, Norm{weight, bias, eps});              \
  }
FOR_EACH_TYPE(LAYER_NORM)

#define ADD_NORM(name, T)                                                                                  \
  KERNEL(128)                                                                                              \
  add_norm_##name(T::Element *x, const T::Element *residual, const float *linear_bias, i64 rows,      \
                       int width, int vector, const float *weight, const float *bias, float eps) {         \
    normalise<T>(WithResidual<T>{x, residual, linear_bias}, x, rows, width, vector,                        \
                 Norm{weight, bias, eps});                                                       \
  }
FOR_EACH_TYPE(ADD_NORM)

#define EMBED(name, T)                                                                                     \
  KERNEL(128)                                                                                              \
  embed_##name(const u32 *ids, const u32 *positions, const T::Element *word, const T::Element *table, \
                    T::Element *out, u32 vocabulary, i64 rows, int width, int vector, const float *weight, \
                    const float *bias, float eps) {                                                        \
    normalise<T>(Embedding<T>{ids, positions, word, table, vocabulary}, out, rows, width, vector,          \
                 Norm{weight, bias, eps});                                                       \
  }
FOR_EACH_TYPE(EMBED)
