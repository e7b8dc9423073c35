// cuBLAS, cuBLASLt and cuRAND of an emulated GPU (see driver.cpp): products in f32 sums, no random numbers.
//
// An algorithm is how many terms are added up before they join the sum. As on a GPU the libraries choose it by the size of
// the result, so that a program which leaves it to them gets other last digits in another batch.
#include "gpu.h"

#include <cmath>
#include <cstring>
#include <vector>

#define HOST_EMULATION
#include "../common.cuh"

typedef int BlasStatus; // a cublasStatus_t
constexpr BlasStatus BLAS_SUCCESS = 0, BLAS_INVALID_VALUE = 7, BLAS_EXECUTION_FAILED = 13, BLAS_NOT_SUPPORTED = 15;
enum { R_32F = 0, R_64F = 1, R_16F = 2, R_16BF = 14 };                       // cudaDataType
enum { COMPUTE_16F = 64, COMPUTE_32F = 68 };                                 // cublasComputeType_t
enum { EPILOGUE_DEFAULT = 1, EPILOGUE_BIAS = 4 };                            // cublasLtEpilogue_t
enum { DESC_TRANSA = 3, DESC_TRANSB = 4, DESC_TRANSC = 5, DESC_EPILOGUE = 7, DESC_BIAS = 8 };

static size_t size_of(int type) { return type == R_32F ? 4 : 2; }
static float read(const void *p, size_t i, int type) {
  switch (type) {
    case R_32F: return ((const float *)p)[i];
    case R_16F: return F16::load((const u16 *)p + i);
    default: return BF16::load((const u16 *)p + i);
  }
}
static void write(void *p, size_t i, int type, float value) {
  switch (type) {
    case R_32F: ((float *)p)[i] = value; break;
    case R_16F: F16::store((u16 *)p + i, value); break;
    default: BF16::store((u16 *)p + i, value);
  }
}

// A matrix as the libraries see it: columns `ld` elements apart.
struct Matrix {
  void *start;
  int type;
  int64_t ld, stride; // stride: to the next of a batch
};

struct Product { // c[m, n] = alpha a[m, k] b[k, n] + beta c + bias, column-major
  int64_t m, n, k, batch;
  bool transpose_a, transpose_b;
  Matrix a, b, c;
  float alpha, beta;
  const void *bias; // of c's type, one a row of c; or null
  int64_t algorithm;
};

static int64_t best_algorithm(int64_t columns) { return 16 << columns % 5; }

// Rows of the left and columns of the right operand as f32, k elements side by side.
static std::vector<float> gathered(const Matrix &matrix, int64_t item, int64_t count, int64_t k, bool side_by_side) {
  std::vector<float> values(count * k);
  for (int64_t i = 0; i < count; i++)
    for (int64_t j = 0; j < k; j++)
      values[i * k + j] = read(matrix.start, item * matrix.stride + (side_by_side ? i * matrix.ld + j : j * matrix.ld + i), matrix.type);
  return values;
}

static float dot(const float *x, const float *y, int64_t k, int64_t terms) {
  float total = 0;
  for (int64_t begin = 0; begin < k; begin += terms) {
    const int64_t end = begin + terms < k ? begin + terms : k;
    float sums[16] = {}, sum = 0;
    int64_t i = begin;
    for (; i + 16 <= end; i += 16)
      for (int lane = 0; lane < 16; lane++) sums[lane] += x[i + lane] * y[i + lane];
    for (; i < end; i++) sum += x[i] * y[i];
    for (float lane : sums) sum += lane;
    total += sum;
  }
  return total;
}

static void multiply(const Product &p) {
  for (int64_t item = 0; item < p.batch; item++) {
    const std::vector<float> a = gathered(p.a, item, p.m, p.k, p.transpose_a);
    const std::vector<float> b = gathered(p.b, item, p.n, p.k, !p.transpose_b);
    for (int64_t j = 0; j < p.n; j++)
      for (int64_t i = 0; i < p.m; i++) {
        const size_t at = item * p.c.stride + j * p.c.ld + i;
        float value = p.alpha * dot(&a[i * p.k], &b[j * p.k], p.k, p.algorithm);
        if (p.beta != 0) value += p.beta * read(p.c.start, at, p.c.type);
        if (p.bias) value += read(p.bias, i, p.c.type);
        write(p.c.start, at, p.c.type, value);
      }
  }
}

// Whether a matrix of so many rows and columns lies in one buffer.
static bool lies_in_a_buffer(const Matrix &matrix, int64_t rows, int64_t columns, int64_t batch) {
  if (matrix.ld < rows) return false;
  const int64_t last = (batch - 1) * matrix.stride + (columns - 1) * matrix.ld + rows;
  return is_in_a_buffer(matrix.start, last * size_of(matrix.type));
}

static BlasStatus start(const Product &p, const char *name, Stream *stream) {
  if (p.m < 1 || p.n < 1 || p.k < 1 || p.batch < 1) return BLAS_INVALID_VALUE;
  const bool fits = lies_in_a_buffer(p.a, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.batch) &&
                    lies_in_a_buffer(p.b, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.batch) &&
                    lies_in_a_buffer(p.c, p.m, p.n, p.batch) && (!p.bias || is_in_a_buffer(p.bias, p.m * size_of(p.c.type)));
  if (!fits || !stream) return BLAS_INVALID_VALUE;
  if (usable() != SUCCESS) return BLAS_EXECUTION_FAILED;
  count_launch(name);
  submit(stream, [p] { multiply(p); });
  return BLAS_SUCCESS;
}

// ---- cuBLAS ----------------------------------------------------------------------------------

struct Blas {
  Stream *stream;
};
API BlasStatus cublasCreate_v2(Blas **handle) { return *handle = new Blas{}, usable() == SUCCESS ? 0 : 1; }
API BlasStatus cublasDestroy_v2(Blas *handle) { return delete handle, usable() == SUCCESS ? 0 : BLAS_EXECUTION_FAILED; }
API BlasStatus cublasSetStream_v2(Blas *handle, Stream *stream) { return handle->stream = stream, BLAS_SUCCESS; }

API BlasStatus cublasGemmStridedBatchedEx(Blas *handle, int ta, int tb, int m, int n, int k, const void *alpha,
                                          const void *a, int a_type, int lda, long long stride_a, const void *b,
                                          int b_type, int ldb, long long stride_b, const void *beta, void *c, int c_type,
                                          int ldc, long long stride_c, int batch, int compute, int) {
  if (a_type != b_type || a_type == R_64F || (compute != COMPUTE_32F && compute != COMPUTE_16F)) return BLAS_NOT_SUPPORTED;
  const int scalar = compute == COMPUTE_16F ? R_16F : R_32F;
  return start({m, n, k, batch, ta != 0, tb != 0, {(void *)a, a_type, lda, stride_a}, {(void *)b, b_type, ldb, stride_b},
                {c, c_type, ldc, stride_c}, read(alpha, 0, scalar), read(beta, 0, scalar), nullptr,
                best_algorithm(n)},
               "cublasGemm", handle->stream);
}
API BlasStatus cublasGemmEx(Blas *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a,
                            int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, void *c,
                            int c_type, int ldc, int compute, int algorithm) {
  return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type,
                                    ldc, 0, 1, compute, algorithm);
}
API BlasStatus cublasSgemm_v2(Blas *handle, int ta, int tb, int m, int n, int k, const float *alpha, const float *a,
                              int lda, const float *b, int ldb, const float *beta, float *c, int ldc) {
  return cublasGemmEx(handle, ta, tb, m, n, k, alpha, a, R_32F, lda, b, R_32F, ldb, beta, c, R_32F, ldc, COMPUTE_32F, 0);
}
API BlasStatus cublasDgemmStridedBatched() { return BLAS_NOT_SUPPORTED; }

// ---- cuBLASLt --------------------------------------------------------------------------------

struct LtDescription {
  int transpose_a, transpose_b, epilogue;
  const void *bias;
};
struct LtLayout {
  int type;
  uint64_t rows, columns;
  int64_t ld;
};
struct LtHeuristic { // cublasLtMatmulHeuristicResult_t
  uint64_t algorithm[8];
  size_t workspace;
  BlasStatus state;
  float waves;
  int reserved[4];
};

API BlasStatus cublasLtCreate(int **handle) { return *handle = new int, usable() == SUCCESS ? 0 : 1; }
API BlasStatus cublasLtDestroy(int *handle) { return delete handle, BLAS_SUCCESS; }
API BlasStatus cublasLtMatmulDescCreate(LtDescription **description, int compute, int scale) {
  *description = new LtDescription{0, 0, EPILOGUE_DEFAULT, nullptr};
  return compute == COMPUTE_32F && scale == R_32F ? BLAS_SUCCESS : BLAS_NOT_SUPPORTED;
}
API BlasStatus cublasLtMatmulDescDestroy(LtDescription *description) { return delete description, BLAS_SUCCESS; }
API BlasStatus cublasLtMatmulDescSetAttribute(LtDescription *d, int attribute, const void *value, size_t bytes) {
  int number = 0;
  memcpy(&number, value, 4);
  switch (attribute) {
    case DESC_TRANSA: d->transpose_a = number; break;
    case DESC_TRANSB: d->transpose_b = number; break;
    case DESC_TRANSC: return number ? BLAS_NOT_SUPPORTED : BLAS_SUCCESS;
    case DESC_EPILOGUE: d->epilogue = number; break;
    case DESC_BIAS:
      if (bytes != sizeof d->bias) return BLAS_INVALID_VALUE;
      memcpy(&d->bias, value, bytes);
      break;
    default: return BLAS_NOT_SUPPORTED;
  }
  return BLAS_SUCCESS;
}
API BlasStatus cublasLtMatmulPreferenceCreate(int **preference) { return *preference = new int, BLAS_SUCCESS; }
API BlasStatus cublasLtMatmulPreferenceDestroy(int *preference) { return delete preference, BLAS_SUCCESS; }
API BlasStatus cublasLtMatmulPreferenceSetAttribute(int *, int attribute, const void *, size_t bytes) {
  const size_t wanted = attribute == 1 ? 8 : attribute == 3 ? 4 : 0; // workspace, ways of splitting sums
  return bytes == wanted ? BLAS_SUCCESS : BLAS_INVALID_VALUE;
}
API BlasStatus cublasLtMatrixLayoutCreate(LtLayout **layout, int type, uint64_t rows, uint64_t columns, int64_t ld) {
  return *layout = new LtLayout{type, rows, columns, ld}, BLAS_SUCCESS;
}
API BlasStatus cublasLtMatrixLayoutDestroy(LtLayout *layout) { return delete layout, BLAS_SUCCESS; }
API BlasStatus cublasLtMatrixLayoutSetAttribute(LtLayout *, int, const void *, size_t) { return BLAS_NOT_SUPPORTED; }

API BlasStatus cublasLtMatmulAlgoGetHeuristic(int *, LtDescription *, LtLayout *a, LtLayout *b, LtLayout *c, LtLayout *,
                                              int *, int wanted, LtHeuristic *found, int *count) {
  *count = 0;
  if (usable() != SUCCESS) return BLAS_EXECUTION_FAILED;
  for (LtLayout *layout : {a, b, c}) // as if the tensor cores' rows of 16 bytes were all there is for 16-bit types
    if (layout->type != R_32F && layout->ld % 8) return BLAS_NOT_SUPPORTED;
  // The best takes whole tiles of rows alone, the second any number.
  const uint64_t terms = best_algorithm(c->columns);
  for (; *count < wanted && *count < 2; ++*count) found[*count] = {{terms, *count == 0}, 0, BLAS_SUCCESS, 1, {}};
  return BLAS_SUCCESS;
}
static bool is_supported(const LtHeuristic *algorithm, const LtLayout *out) {
  return !algorithm->algorithm[1] || out->columns % 8 == 0;
}
API BlasStatus cublasLtMatmulAlgoCheck(int *, LtDescription *, LtLayout *, LtLayout *, LtLayout *c, LtLayout *,
                                       const LtHeuristic *algorithm, LtHeuristic *) {
  return is_supported(algorithm, c) ? BLAS_SUCCESS : BLAS_NOT_SUPPORTED;
}
API BlasStatus cublasLtMatmul(int *, LtDescription *d, const float *alpha, const void *a, LtLayout *a_layout, const void *b,
                              LtLayout *b_layout, const float *beta, const void *c, LtLayout *c_layout, void *out,
                              LtLayout *, const LtHeuristic *algorithm, void *workspace, size_t bytes, Stream *stream) {
  const uint64_t k = d->transpose_a ? a_layout->rows : a_layout->columns;
  const uint64_t k_of_b = d->transpose_b ? b_layout->columns : b_layout->rows;
  const bool aligned = (uint64_t)a % 256 == 0 && (uint64_t)b % 256 == 0 && (uint64_t)out % 256 == 0;
  if (k != k_of_b || c != out || !algorithm->algorithm[0] || !is_in_a_buffer(workspace, bytes)) return BLAS_INVALID_VALUE;
  if (!is_supported(algorithm, c_layout)) return BLAS_NOT_SUPPORTED;
  if (!aligned || (d->epilogue != EPILOGUE_DEFAULT && d->epilogue != EPILOGUE_BIAS)) return BLAS_NOT_SUPPORTED;
  return start({(int64_t)c_layout->rows, (int64_t)c_layout->columns, (int64_t)k, 1, d->transpose_a != 0, d->transpose_b != 0,
                {(void *)a, a_layout->type, a_layout->ld, 0}, {(void *)b, b_layout->type, b_layout->ld, 0},
                {out, c_layout->type, c_layout->ld, 0}, *alpha, *beta, d->epilogue == EPILOGUE_BIAS ? d->bias : nullptr,
                (int64_t)algorithm->algorithm[0]},
               "cublasLtMatmul", stream);
}

// ---- cuRAND ----------------------------------------------------------------------------------

API int curandCreateGenerator(int **generator, int) { return *generator = new int, 0; }
API int curandDestroyGenerator(int *generator) { return delete generator, usable() == SUCCESS ? 0 : 203; } // launch failure
API int curandSetPseudoRandomGeneratorSeed(int *, unsigned long long) { return 0; }
API int curandSetStream(int *, Stream *) { return 0; }
