// candle's kernels on an emulated GPU (see driver.cpp), as far as this program uses them: loops that say what
// each computes. A missing one is named when it is asked for.
#include "gpu.h"

#define HOST_EMULATION
#include "../common.cuh"

#include <algorithm>

#define WHOLE(name, function) static const bool has_##name = add_kernel(#name, function, true);

typedef unsigned char u8;

struct U8 {
  typedef u8 Element;
  static float load(const u8 *p) { return *p; }
  static void store(u8 *p, float v) { *p = (u8)v; }
};
struct U32 {
  typedef u32 Element;
  static double load(const u32 *p) { return *p; }
  static void store(u32 *p, double v) { *p = (u32)v; }
};

// Where element `i` of a tensor lies that has these sizes and strides.
static size_t place(size_t i, size_t dimensions, const size_t *sizes, const size_t *strides) {
  size_t at = 0;
  for (size_t d = dimensions; d-- > 0; i /= sizes[d]) at += i % sizes[d] * strides[d];
  return at;
}
// `info` has the sizes, then the strides of one tensor or more; null where all are dense.
static size_t place_of(size_t tensor, size_t i, size_t dimensions, const size_t *info) {
  return info ? place(i, dimensions, info, info + (1 + tensor) * dimensions) : i;
}

// ---- copies ----------------------------------------------------------------------------------

template <class From, class To>
static void cast(size_t count, size_t dimensions, const size_t *info, const typename From::Element *x, typename To::Element *y) {
  for (size_t i = 0; i < count; i++) To::store(y + i, From::load(x + place_of(0, i, dimensions, info)));
}
WHOLE(cast_f32_bf16, (cast<F32, BF16>))
WHOLE(cast_f32_f16, (cast<F32, F16>))
WHOLE(cast_f32_u32, (cast<F32, U32>))
WHOLE(cast_bf16_f32, (cast<BF16, F32>))
WHOLE(cast_bf16_f16, (cast<BF16, F16>))
WHOLE(cast_f16_f32, (cast<F16, F32>))
WHOLE(cast_f16_bf16, (cast<F16, BF16>))
WHOLE(cast_u32_f32, (cast<U32, F32>))
WHOLE(cast_u8_f32, (cast<U8, F32>))

template <class E>
static void copy(size_t count, size_t dimensions, const size_t *info, const E *x, E *y) {
  for (size_t i = 0; i < count; i++) y[i] = x[place_of(0, i, dimensions, info)];
}
WHOLE(ucopy_f32, copy<float>)
WHOLE(ucopy_u32, copy<u32>)
WHOLE(ucopy_u8, copy<u8>)
WHOLE(ucopy_bf16, copy<u16>)
WHOLE(ucopy_f16, copy<u16>)

template <class E>
static void copy_rows(const E *from, E *to, u32 rows, u32 width, u32 from_stride, u32 to_stride) {
  for (u32 r = 0; r < rows; r++)
    for (u32 c = 0; c < width; c++) to[(size_t)r * to_stride + c] = from[(size_t)r * from_stride + c];
}
WHOLE(copy2d_f32, copy_rows<float>)
WHOLE(copy2d_u32, copy_rows<u32>)
WHOLE(copy2d_bf16, copy_rows<u16>)
WHOLE(copy2d_f16, copy_rows<u16>)

template <class E>
static void set(size_t count, size_t dimensions, const size_t *info, E value, E *y) {
  for (size_t i = 0; i < count; i++) y[place_of(0, i, dimensions, info)] = value;
}
WHOLE(const_set_f32, set<float>)
WHOLE(const_set_u32, set<u32>)
WHOLE(const_set_u8, set<u8>)

// ---- one element, two, three -----------------------------------------------------------------

// In place where `x` is null.
template <float (*F)(float)>
static void unary(size_t count, size_t dimensions, const size_t *info, const float *x, float *y) {
  for (size_t i = 0; i < count; i++) y[i] = F(x ? x[place_of(0, i, dimensions, info)] : y[i]);
}
#define UNARY(name, formula)                          \
  static float name##_of(float x) { return formula; } \
  WHOLE(name##_f32, unary<name##_of>)
UNARY(uneg, -x)
UNARY(usqr, x * x)
UNARY(usqrt, sqrtf(x))
UNARY(uexp, expf(x))
UNARY(ulog, logf(x))
UNARY(uabs, fabsf(x))
UNARY(utanh, tanhf(x))
UNARY(uerf, erff(x))
UNARY(urecip, 1 / x)
UNARY(urelu, x > 0 ? x : 0)
UNARY(usigmoid, 1 / (1 + expf(-x)))
UNARY(ugelu_erf, activate<GELU>(x))
UNARY(ugelu, activate<GELU_TANH>(x))

static void affine(size_t count, size_t dimensions, const size_t *info, const float *x, float *y, float factor, float term) {
  for (size_t i = 0; i < count; i++) y[i] = (x ? x[place_of(0, i, dimensions, info)] : y[i]) * factor + term;
}
WHOLE(affine_f32, affine)

static void power(size_t count, size_t dimensions, const size_t *info, float exponent, const float *x, float *y) {
  for (size_t i = 0; i < count; i++) y[i] = powf(x ? x[place_of(0, i, dimensions, info)] : y[i], exponent);
}
WHOLE(upowf_f32, power)

template <class E, class R, R (*F)(E, E)>
static void binary(size_t count, size_t dimensions, const size_t *info, const E *x, const E *y, R *out) {
  for (size_t i = 0; i < count; i++) out[i] = F(x[place_of(0, i, dimensions, info)], y[place_of(1, i, dimensions, info)]);
}
#define BINARY(name, formula)                                  \
  static float name##_of(float x, float y) { return formula; } \
  WHOLE(name##_f32, (binary<float, float, name##_of>))
BINARY(badd, x + y)
BINARY(bsub, x - y)
BINARY(bmul, x *y)
BINARY(bdiv, x / y)
BINARY(bmaximum, fmaxf(x, y))
BINARY(bminimum, fminf(x, y))
#define COMPARISON(name, formula)                           \
  static u8 name##_of(float x, float y) { return formula; } \
  WHOLE(name##_f32, (binary<float, u8, name##_of>))
COMPARISON(eq, x == y)
COMPARISON(ne, x != y)
COMPARISON(lt, x < y)
COMPARISON(le, x <= y)
COMPARISON(gt, x > y)
COMPARISON(ge, x >= y)

static void choose(size_t count, size_t dimensions, const size_t *info, const u8 *condition, const float *x, const float *y, float *out) {
  for (size_t i = 0; i < count; i++)
    out[i] = condition[place_of(0, i, dimensions, info)] ? x[place_of(1, i, dimensions, info)] : y[place_of(2, i, dimensions, info)];
}
WHOLE(where_u8_f32, choose)

// ---- reductions ------------------------------------------------------------------------------

template <float (*F)(float, float)>
static void reduce(size_t count, size_t each, size_t dimensions, const size_t *info, const float *x, float *y) {
  for (size_t i = 0; i * each < count; i++) {
    float result = x[place_of(0, i * each, dimensions, info)];
    for (size_t j = 1; j < each; j++) result = F(result, x[place_of(0, i * each + j, dimensions, info)]);
    y[i] = result;
  }
}
static void sum_rows(size_t rows, size_t each, size_t dimensions, const size_t *info, const float *x, float *y) {
  reduce<badd_of>(rows * each, each, dimensions, info, x, y);
}
WHOLE(fast_sum_f32, reduce<badd_of>)
WHOLE(fast_sum_small_f32, sum_rows)
WHOLE(fast_max_f32, reduce<bmaximum_of>)
WHOLE(fast_min_f32, reduce<bminimum_of>)

// ---- by index --------------------------------------------------------------------------------

// out[l, i, r] = x[l, ids[i], r]
template <class E>
static void index_select(size_t count, size_t dimensions, const size_t *info, const u32 *ids, const E *x, E *out, size_t,
                         size_t size, size_t chosen, size_t right) {
  for (size_t at = 0; at < count; at++) {
    const size_t r = at % right, i = at / right % chosen, l = at / right / chosen;
    const u32 id = ids[place_of(0, i, dimensions, info)];
    out[at] = id == 0xffffffffu ? E(0) : x[(l * size + id) * right + r];
  }
}
WHOLE(is_u32_f32, index_select<float>)
WHOLE(is_u32_bf16, index_select<u16>)
WHOLE(is_u32_f16, index_select<u16>)

// out[l, ids[i], r] += x[l, i, r]
static void index_add(const u32 *ids, size_t chosen, const float *x, float *out, size_t left, size_t, size_t size, size_t right) {
  for (size_t l = 0; l < left; l++)
    for (size_t i = 0; i < chosen; i++)
      for (size_t r = 0; r < right; r++)
        if (ids[i] != 0xffffffffu) out[(l * size + ids[i]) * right + r] += x[(l * chosen + i) * right + r];
}
WHOLE(ia_u32_f32, index_add)

// out[l, i, r] = x[l, ids[l, i, r], r]
static void gather(size_t count, const u32 *ids, const float *x, float *out, size_t, size_t size, size_t chosen, size_t right) {
  for (size_t at = 0; at < count; at++) {
    const size_t r = at % right, l = at / right / chosen;
    out[at] = ids[at] == 0xffffffffu ? 0 : x[(l * size + ids[at]) * right + r];
  }
}
WHOLE(gather_u32_f32, gather)

// out[l, ids[l, i, r], r] += x[l, i, r]
static void scatter_add(const u32 *ids, const float *x, float *out, size_t left, size_t chosen, size_t size, size_t right) {
  for (size_t l = 0; l < left; l++)
    for (size_t i = 0; i < chosen; i++)
      for (size_t r = 0; r < right; r++) {
        const size_t at = (l * chosen + i) * right + r;
        if (ids[at] != 0xffffffffu) out[(l * size + ids[at]) * right + r] += x[at];
      }
}
WHOLE(sa_u32_f32, scatter_add)
