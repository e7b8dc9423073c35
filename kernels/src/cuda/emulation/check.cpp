// Runs the kernels of this folder on the CPU and compares them with f64 arithmetic on ragged sizes.
// It finds wrong indexing, wrong fragment layouts, unwritten outputs and wrong formulas; it does not
// find races between blocks, and it is not fast.
//
//   g++ -std=c++17 -O2 -o check kernels/src/cuda/emulation/check.cpp && ./check
#define HOST_EMULATION
#include "../common.cuh"

#include "../attention.cu"
#include "../bilinear.cu"
#include "../pooling.cu"
#include "../rows.cu"
#include "../views.cu"

#include <random>
#include <vector>

template <class T>
using Values = std::vector<T>;

static std::mt19937 generator(1);

static void run(unsigned x, unsigned y, unsigned threads, const std::function<void()> &kernel) {
  run_grid({x, y, 1}, threads, kernel);
}

// Elements of a type, made from and read as f32; outputs start as NaN.
template <class T>
struct Array {
  Values<typename T::Element> data;
  explicit Array(size_t n) : data(n) {
    for (auto &x : data) T::store(&x, NAN);
  }
  Array(size_t n, float deviation) : Array(n) {
    std::normal_distribution<float> normal(0.f, deviation);
    for (auto &x : data) T::store(&x, normal(generator));
  }
  double operator[](size_t i) const { return T::load(&data[i]); }
  typename T::Element *at(size_t i = 0) { return data.data() + i; }
};

static int failures = 0;

struct Worst {
  double value = 0;
  void see(double found, double wanted) {
    const double error = std::fabs(found - wanted) / (1 + std::fabs(wanted));
    if (!(error <= value)) value = error; // NaN sticks
  }
  void report(const char *what, double limit) const {
    const bool ok = value <= limit;
    printf("%s %-60s %.1e (limit %.0e)\n", ok ? "ok  " : "FAIL", what, value, limit);
    failures += !ok;
  }
};

template <class T>
struct Type;
template <>
struct Type<F32> {
  static constexpr const char *name = "f32";
  static constexpr double limit = 4e-6;
};
template <>
struct Type<BF16> {
  static constexpr const char *name = "bf16";
  static constexpr double limit = 4e-3;
};
template <>
struct Type<F16> {
  static constexpr const char *name = "f16";
  static constexpr double limit = 6e-4;
};

static char title[128];
#define TITLE(...) (snprintf(title, sizeof title, __VA_ARGS__), title)

static double activated(int activation, double x) {
  switch (activation) {
    case GELU: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case GELU_TANH: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case RELU: return x < 0 ? 0 : x;
    case TANH: return std::tanh(x);
    default: return x;
  }
}

static Values<double> normalised(const Values<double> &x, Array<F32> &weight, Array<F32> &bias, double eps) {
  double mean = 0, variance = 0;
  for (double v : x) mean += v / x.size();
  for (double v : x) variance += (v - mean) * (v - mean) / x.size();
  Values<double> y;
  for (size_t c = 0; c < x.size(); c++) y.push_back((x[c] - mean) / std::sqrt(variance + eps) * weight[c] + bias[c]);
  return y;
}

template <class T, class Kernel>
static void bias_activation_case(Kernel kernel, int rows, int width, int activation, bool with_bias) {
  Array<T> x(rows * width, 2.f);
  const Array<T> before = x;
  Array<F32> bias(width, 1.f);
  const unsigned threads = std::min((width / 8 + 31) / 32 * 32 + (width % 8 ? 32 : 0), 512);
  run((rows + ROWS - 1) / ROWS, 1, std::max(32u, threads),
      [&] { kernel(x.at(), with_bias ? bias.at() : nullptr, rows, width, activation); });
  Worst worst;
  for (int i = 0; i < rows * width; i++)
    worst.see(x[i], activated(activation, before[i] + (with_bias ? bias[i % width] : 0)));
  worst.report(TITLE("%s bias + activation %d, [%d, %d]%s", Type<T>::name, activation, rows, width,
                     with_bias ? "" : ", no bias"), Type<T>::limit);
}

template <class T, class Norm, class Add, class Embed>
static void norm_cases(Norm norm, Add add, Embed embed, int rows, int width, int vector) {
  const float eps = 1e-12f;
  Array<F32> weight(width, 1.f), bias(width, 1.f), linear_bias(width, 1.f);
  Array<T> x(rows * width, 2.f), residual(rows * width, 1.f), out(rows * width);
  const unsigned blocks = (rows + 3) / 4;
  const auto row = [&](Values<double> wanted, const Array<T> &found, int r, Worst &worst) {
    wanted = normalised(wanted, weight, bias, eps);
    for (int c = 0; c < width; c++) worst.see(found[r * width + c], wanted[c]);
  };
  Worst plain, added, unbiased, embedded;
  run(blocks, 1, 128, [&] { norm(x.at(), out.at(), rows, width, vector, weight.at(), bias.at(), eps); });
  for (int r = 0; r < rows; r++) {
    Values<double> v;
    for (int c = 0; c < width; c++) v.push_back(x[r * width + c]);
    row(v, out, r, plain);
  }
  plain.report(TITLE("%s layer norm [%d, %d] vector %d", Type<T>::name, rows, width, vector), 2 * Type<T>::limit);
  for (bool with_bias : {true, false}) {
    Array<T> y = x;
    run(blocks, 1, 128, [&] {
      add(y.at(), residual.at(), with_bias ? linear_bias.at() : nullptr, rows, width, vector, weight.at(), bias.at(), eps);
    });
    for (int r = 0; r < rows; r++) {
      Values<double> v;
      for (int c = 0; c < width; c++)
        v.push_back(x[r * width + c] + residual[r * width + c] + (with_bias ? linear_bias[c] : 0));
      row(v, y, r, with_bias ? added : unbiased);
    }
  }
  added.report(TITLE("%s bias + residual + layer norm [%d, %d] vector %d", Type<T>::name, rows, width, vector), 2 * Type<T>::limit);
  unbiased.report(TITLE("%s residual + layer norm [%d, %d] vector %d", Type<T>::name, rows, width, vector), 2 * Type<T>::limit);
  const u32 vocabulary = 50, table = 8;
  Array<T> word(vocabulary * width, 1.f), position(table * width, 1.f), embeddings(rows * width);
  Values<u32> ids, positions;
  for (int r = 0; r < rows; r++) ids.push_back(generator() % vocabulary), positions.push_back(generator() % table);
  ids[rows - 1] = vocabulary; // one too many
  run(blocks, 1, 128, [&] {
    embed(ids.data(), positions.data(), word.at(), position.at(), embeddings.at(), vocabulary, rows, width, vector,
          weight.at(), bias.at(), eps);
  });
  for (int r = 0; r < rows - 1; r++) {
    Values<double> v;
    for (int c = 0; c < width; c++) v.push_back(word[ids[r] * width + c] + position[positions[r] * width + c]);
    row(v, embeddings, r, embedded);
  }
  bool poisoned = true;
  for (int c = 0; c < width; c++) poisoned &= std::isnan(embeddings[(rows - 1) * width + c]);
  embedded.see(poisoned, true);
  embedded.report(TITLE("%s embeddings [%d, %d] vector %d", Type<T>::name, rows, width, vector), 2 * Type<T>::limit);
}

static Values<u32> offsets_of(const Values<int> &lengths) {
  Values<u32> offsets = {0};
  for (int length : lengths) offsets.push_back(offsets.back() + length);
  return offsets;
}

template <class T>
static void attention_case(const char *what, const Values<int> &lengths, int heads, int width, float deviation,
                           const std::function<void(Array<T> &, Array<T> &, Values<u32> &)> &launch, double limit) {
  Values<u32> offsets = offsets_of(lengths);
  const int tokens = offsets.back(), hidden = heads * width;
  Array<T> qkv((size_t)tokens * 3 * hidden, deviation), out((size_t)tokens * hidden);
  launch(qkv, out, offsets);
  Worst worst;
  for (size_t s = 0; s + 1 < offsets.size(); s++)
    for (int h = 0; h < heads; h++)
      for (u32 i = offsets[s]; i < offsets[s + 1]; i++) {
        Values<double> p;
        double most = -INFINITY, sum = 0;
        for (u32 j = offsets[s]; j < offsets[s + 1]; j++) {
          double score = 0;
          for (int d = 0; d < width; d++)
            score += qkv[(size_t)i * 3 * hidden + h * width + d] * qkv[(size_t)j * 3 * hidden + hidden + h * width + d];
          p.push_back(score / std::sqrt((double)width));
          most = std::fmax(most, p.back());
        }
        for (auto &x : p) sum += x = std::exp(x - most);
        for (int d = 0; d < width; d++) {
          double mean = 0;
          for (u32 j = offsets[s]; j < offsets[s + 1]; j++)
            mean += p[j - offsets[s]] / sum * qkv[(size_t)j * 3 * hidden + 2 * hidden + h * width + d];
          worst.see(out[(size_t)i * hidden + h * width + d], mean);
        }
      }
  worst.report(TITLE("%s %s, %d heads of %d", Type<T>::name, what, heads, width), limit);
}

template <class T, class Kernel>
static void attention_any_cases(Kernel kernel) {
  for (auto [heads, width] : {std::pair{2, 64}, {3, 32}, {1, 100}, {1, 200}}) {
    const Values<int> lengths = {1, 11, 3};
    const float scale = 1 / std::sqrt((float)width);
    attention_case<T>("attention, any width", lengths, heads, width, 1.5f, [&](auto &qkv, auto &out, auto &offsets) {
      run((offsets.back() * heads + 3) / 4, 1, 128,
          [&] { kernel(qkv.at(), out.at(), offsets.data(), lengths.size(), heads, width, scale); });
    }, 2 * Type<T>::limit);
  }
}

template <class T, class Kernel>
static void attention64_cases(Kernel kernel) {
  for (float deviation : {1.5f, 6.f}) { // the second: scores in the hundreds, so nearly one-hot weights
    const Values<int> lengths = {1, 64, 17, 65, 130};
    attention_case<T>("attention, tensor cores", lengths, 2, 64, deviation, [&](auto &qkv, auto &out, auto &offsets) {
      run(lengths.size() * 2, 3, 128,
          [&] { kernel(qkv.at(), out.at(), offsets.data(), 2, 0.125f * 1.44269504f); });
    }, 4 * Type<T>::limit);
  }
}

template <class T, class Scores, class Weighted, class Mean>
static void pooling_cases(Scores scores_kernel, Weighted weighted, Mean mean, int heads, int width, int vector) {
  const Values<int> lengths = {1, 41, 7, 70};
  Values<u32> offsets = offsets_of(lengths);
  const int tokens = offsets.back(), count = lengths.size();
  Array<T> hidden(tokens * width, 1.f);
  Array<F32> keys(heads * width, 0.2f), scores(tokens * heads), out(count * heads * width), means(count * width), firsts(count * width);
  const unsigned threads = std::min((width / 8 + 31) / 32 * 32 + (width % 8 ? 32 : 0), 128);
  run((tokens + 3) / 4, 1, 128, [&] { scores_kernel(hidden.at(), keys.at(), scores.at(), tokens, heads, width, vector); });
  run(count * heads, 1, threads,
      [&] { weighted(hidden.at(), scores.at(), out.at(), offsets.data(), heads, width, vector); });
  run(count, 1, threads, [&] { mean(hidden.at(), means.at(), offsets.data(), width, vector, 0x7fffffff); });
  run(count, 1, threads, [&] { mean(hidden.at(), firsts.at(), offsets.data(), width, vector, 1); });
  Worst attention, average, first;
  for (int s = 0; s < count; s++) {
    for (int h = 0; h < heads; h++) {
      Values<double> p;
      double most = -INFINITY, sum = 0;
      for (u32 t = offsets[s]; t < offsets[s + 1]; t++) {
        double score = 0;
        for (int c = 0; c < width; c++) score += hidden[t * width + c] * keys[h * width + c];
        p.push_back(score);
        most = std::fmax(most, score);
      }
      for (auto &x : p) sum += x = std::exp(x - most);
      for (int c = 0; c < width; c++) {
        double wanted = 0;
        for (u32 t = offsets[s]; t < offsets[s + 1]; t++) wanted += p[t - offsets[s]] / sum * hidden[t * width + c];
        attention.see(out[(h * count + s) * width + c], wanted);
      }
    }
    for (int c = 0; c < width; c++) {
      double wanted = 0;
      for (u32 t = offsets[s]; t < offsets[s + 1]; t++) wanted += hidden[t * width + c] / lengths[s];
      average.see(means[s * width + c], wanted);
      first.see(firsts[s * width + c], hidden[offsets[s] * width + c]);
    }
  }
  attention.report(TITLE("%s attention pooling, %d heads, width %d, vector %d", Type<T>::name, heads, width, vector), 1e-5);
  average.report(TITLE("%s mean pooling, width %d, vector %d", Type<T>::name, width, vector), 1e-5);
  first.report(TITLE("%s first token, width %d, vector %d", Type<T>::name, width, vector), 0);
}

static void inner_products_case(int pairs, int outputs, int width, int vector, bool with_bias) {
  Array<F32> transformed(pairs * outputs * width, 1.f), x1(pairs * width, 1.f), bias(outputs, 1.f), out(pairs * outputs);
  run((pairs * outputs + 3) / 4, 1, 128, [&] {
    inner_products_f32(transformed.at(), x1.at(), with_bias ? bias.at() : nullptr, out.at(), pairs * outputs, outputs, width, vector);
  });
  Worst worst;
  for (int n = 0; n < pairs; n++)
    for (int o = 0; o < outputs; o++) {
      double wanted = with_bias ? bias[o] : 0;
      for (int c = 0; c < width; c++) wanted += transformed[(n * outputs + o) * width + c] * x1[n * width + c];
      worst.see(out[n * outputs + o], wanted);
    }
  worst.report(TITLE("f32 inner products, %d outputs, width %d, vector %d", outputs, width, vector), 1e-5);
}

static void views_case(int count) {
  Array<F32> a(count, 1.f), b(count, 1.f), product(count), difference(count);
  run((count + 255) / 256, 1, 256, [&] { product_f32(a.at(), b.at(), product.at(), count); });
  run((count + 255) / 256, 1, 256, [&] { abs_diff_f32(a.at(), b.at(), difference.at(), count); });
  Worst products, differences;
  for (int i = 0; i < count; i++) {
    products.see(product[i], float(a[i]) * float(b[i]));
    differences.see(difference[i], std::fabs(float(a[i]) - float(b[i])));
  }
  products.report(TITLE("f32 product of %d", count), 0);
  differences.report(TITLE("f32 difference of %d", count), 0);
}

int main() {
#define ALL(name, T)                                                                                             \
  for (int activation = 0; activation < 5; activation++) bias_activation_case<T>(bias_activation_##name, 3, 72, activation, true); \
  bias_activation_case<T>(bias_activation_##name, 5, 3072, GELU, true);                                          \
  bias_activation_case<T>(bias_activation_##name, 1, 8192, IDENTITY, false);                                     \
  bias_activation_case<T>(bias_activation_##name, 3, 29, GELU, true);                                            \
  bias_activation_case<T>(bias_activation_##name, 2, 1, TANH, false);                                            \
  for (auto [width, vector] : {std::pair{768, 1}, {768, 0}, {256, 1}, {64, 1}, {1024, 1}, {520, 1}, {2048, 1}, {30, 0}, {3, 0}}) \
    norm_cases<T>(layer_norm_##name, add_norm_##name, embed_##name, 6, width, vector);                           \
  attention_any_cases<T>(attention_##name);                                                                      \
  for (auto [width, vector] : {std::pair{768, 1}, {64, 1}, {1032, 1}, {30, 0}})                                  \
    pooling_cases<T>(pool_scores_##name, pool_weighted_##name, pool_mean_##name, 3, width, vector);
  FOR_EACH_TYPE(ALL)
  inner_products_case(3, 17, 256, 1, true);
  inner_products_case(2, 5, 264, 1, false);
  inner_products_case(5, 3, 30, 0, true);
  for (int count : {1, 255, 1000}) views_case(count);
  attention64_cases<BF16>(attention64_bf16);
  attention64_cases<F16>(attention64_f16);
  printf("%s\n", failures ? "some kernels are wrong" : "all kernels agree");
  return failures != 0;
}
