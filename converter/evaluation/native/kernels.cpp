// The kernels of one LEVEL of x86-64 (1, 3 or 4; anywhere else 1): compiled once for each, told apart by their names.
#include "exported.hpp"
#include "quantised.hpp"

#define JOINED(name, level) name##_##level
#define NAMED(name, level) JOINED(name, level)
#define KERNEL(name) NAMED(name, LEVEL)

// --- Types of floats by their place: F32, F16, BF16, F64 -------------------------------------------------------------

namespace {

// What `of` makes of a value of the stored type.
template <class Of>
auto with_stored(int from, Of of) {
    switch (from) {
        case 0: return of(F32{});
        case 1: return of(F16{});
        case 2: return of(BF16{});
        default: return of(F64{});
    }
}

}  // namespace

// --- Quantising: types by their place in TYPES -----------------------------------------------------------------------

EXPORTED void KERNEL(quantise)(int type, const float *numbers, size_t n, const float *steps, int n_steps,
                               uint8_t *blocks, uint8_t *odd) {
    TYPES[type].quantise(numbers, n, {steps, n_steps}, blocks, odd, nullptr);
}

EXPORTED int KERNEL(quantise_sum)(int from, int type, const void *base, const double *product, size_t n, double scaling,
                                  const float *steps, int n_steps, uint8_t *blocks, size_t each, float *shown,
                                  double *sums) {
    return with_stored(from, [=](auto stored) {
        const Steps of = {steps, n_steps};
        return quantise_sum<decltype(stored)>(base, product, n, scaling, TYPES[type], of, blocks, each, shown, sums);
    });
}

// --- Merging ---------------------------------------------------------------------------------------------------------

EXPORTED int KERNEL(merge)(int from, int to, const void *base, const double *product, void *out, size_t n_rows,
                           size_t n_columns, size_t base_columns, double scaling, double *sums) {
    return with_stored(from, [=](auto stored) {
        using From = decltype(stored);
        const Matrices of = {base, product, out, n_rows, n_columns, base_columns};
        switch (to) {
            case 0: return merge_rows<From, ToF32>(of, scaling, sums);
            case 1: return merge_rows<From, ToF16>(of, scaling, sums);
            default: return merge_rows<From, ToBF16>(of, scaling, sums);
        }
    });
}

EXPORTED void KERNEL(sums)(int from, const void *base, const double *product, size_t n, double scaling,
                           const float *stored, double *sums) {
    with_stored(from, [=](auto of) { sum_stored<decltype(of)>(base, product, n, scaling, stored, sums); });
}
