// The kernels of one LEVEL of x86-64 (1, 3 or 4; anywhere else 1): compiled once for each, told apart by their names.
#include "exported.hpp"
#include "quantised.hpp"

#define JOINED(name, level) name##_##level
#define NAMED(name, level) JOINED(name, level)
#define KERNEL(name) NAMED(name, LEVEL)

// --- Quantising: types by their place in TYPES -----------------------------------------------------------------------

EXPORTED void KERNEL(quantise)(int type, const float *numbers, size_t n, const float *steps, int n_steps,
                               uint8_t *blocks, uint8_t *odd) {
    TYPES[type].quantise(numbers, n, {steps, n_steps}, blocks, odd, nullptr);
}

EXPORTED int KERNEL(quantise_sum)(int from, int type, const void *base, const double *product, size_t n, double scaling,
                                  const float *steps, int n_steps, uint8_t *blocks, size_t each, float *shown,
                                  double *sums) {
    const Type &to = TYPES[type];
    const Steps of = {steps, n_steps};
    switch (from) {
        case 0: return quantise_sum<F32>(base, product, n, scaling, to, of, blocks, each, shown, sums);
        case 1: return quantise_sum<F16>(base, product, n, scaling, to, of, blocks, each, shown, sums);
        case 2: return quantise_sum<BF16>(base, product, n, scaling, to, of, blocks, each, shown, sums);
        default: return quantise_sum<F64>(base, product, n, scaling, to, of, blocks, each, shown, sums);
    }
}

// --- Merging: types by their place in F32, F16, BF16, F64 ------------------------------------------------------------

namespace {

template <class From>
bool merge_from(int to, const Matrices &of, double scaling, double *sums) {
    switch (to) {
        case 0: return merge_rows<From, ToF32>(of, scaling, sums);
        case 1: return merge_rows<From, ToF16>(of, scaling, sums);
        default: return merge_rows<From, ToBF16>(of, scaling, sums);
    }
}

}  // namespace

EXPORTED int KERNEL(merge)(int from, int to, const void *base, const double *product, void *out, size_t n_rows,
                           size_t n_columns, size_t base_columns, double scaling, double *sums) {
    const Matrices of = {base, product, out, n_rows, n_columns, base_columns};
    switch (from) {
        case 0: return merge_from<F32>(to, of, scaling, sums);
        case 1: return merge_from<F16>(to, of, scaling, sums);
        case 2: return merge_from<BF16>(to, of, scaling, sums);
        default: return merge_from<F64>(to, of, scaling, sums);
    }
}

EXPORTED void KERNEL(sums)(int from, const void *base, const double *product, size_t n, double scaling,
                           const float *stored, double *sums) {
    switch (from) {
        case 0: return sum_stored<F32>(base, product, n, scaling, stored, sums);
        case 1: return sum_stored<F16>(base, product, n, scaling, stored, sums);
        case 2: return sum_stored<BF16>(base, product, n, scaling, stored, sums);
        default: return sum_stored<F64>(base, product, n, scaling, stored, sums);
    }
}
