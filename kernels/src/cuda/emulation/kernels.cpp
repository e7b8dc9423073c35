// The kernels of the folder above on an emulated GPU (see driver.cpp), thread by thread.
#include "gpu.h"

#define HOST_EMULATION
#include "../common.cuh"

#include "../attention.cu"
#include "../bilinear.cu"
#include "../pooling.cu"
#include "../rows.cu"
#include "../views.cu"

std::map<std::string, Kernel> &kernels() {
  static auto &table = *new std::map<std::string, Kernel>;
  return table;
}

void run_threads(unsigned x, unsigned y, unsigned z, unsigned threads, const std::function<void()> &kernel) {
  run_grid({x, y, z}, threads, kernel);
}

#define ADD(name) static const bool has_##name = add_kernel(#name, name, false);
#define ADD_OF_TYPE(type, _)                                                                    \
  ADD(attention_##type) ADD(pool_scores_##type) ADD(pool_weighted_##type) ADD(pool_mean_##type) \
  ADD(bias_activation_##type) ADD(layer_norm_##type) ADD(add_norm_##type) ADD(embed_##type)
FOR_EACH_TYPE(ADD_OF_TYPE)
ADD(attention64_bf16)
ADD(attention64_f16)
ADD(inner_products_f32)
ADD(product_f32)
ADD(abs_diff_f32)
