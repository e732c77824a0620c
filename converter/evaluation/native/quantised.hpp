// Block types without an imatrix: of numbers, or of a sum that is merged, rounded to float32, quantised and measured
// while it stays in a core's cache.
#pragma once

#include "merged.hpp"
#include "with_minimum.hpp"
#include "with_scale.hpp"

namespace {

// `n` blocks of numbers. `odd` says of each whether libggml has to make it; `back`, where it isn't null, is what the
// others stand for.
using Quantise = void(const float *numbers, size_t n, const Steps &steps, uint8_t *blocks, uint8_t *odd, float *back);

struct Type {
    Quantise *quantise;
    size_t n_numbers, n_bytes;
};

constexpr Type TYPES[] = {
    {with_minimum<15, 144>, 256, 144},  // Q4_K
    {with_minimum<31, 176>, 256, 176},  // Q5_K
    {with_scale, 256, 210},             // Q6_K
    {q5_0, 32, 22},
    {q8_0, 32, 34},
};

constexpr size_t AT_ONCE = 2048;  // numbers: eight blocks of K-quants, on a thread's stack

// base + scaling * product of `n` blocks; the base alone where product is null. Of every `each`th block its numbers are
// put into `shown`, for libggml to prove. Whether all numbers went without a question and no block is odd: otherwise
// nothing of it is of use.
template <class From>
inline bool quantise_sum(const void *words, const double *product, size_t n, double scaling, const Type &type,
                         const Steps &steps, uint8_t *blocks, size_t each, float *shown, double *sums) {
    const auto *base = (const typename From::Word *)words;
    const size_t n_at_once = AT_ONCE / type.n_numbers;
    double nothing[2 * AT_ONCE];
    if (!product)
        for (double &number : nothing) number = -0.0;  // which changes no number, nor the sign of zero
    for (size_t first = 0; first < n;) {
        // The last ones are more, for a kernel takes no fewer than four.
        const size_t some = n - first < 2 * n_at_once ? n - first : n_at_once;
        float numbers[2 * AT_ONCE], back[2 * AT_ONCE];
        uint8_t odd[2 * AT_ONCE / 32];
        const size_t begin = first * type.n_numbers, n_numbers = some * type.n_numbers;
        const Matrices of = {base + begin, product ? product + begin : nothing, numbers, 1, n_numbers, n_numbers};
        if (!merge_rows<From, ToF32, false>(of, scaling, nullptr)) return false;
        type.quantise(numbers, some, steps, blocks + first * type.n_bytes, odd, product ? back : nullptr);
        int any = 0;
        for (size_t i = 0; i < some; i++) any |= odd[i];
        if (any) return false;
        if (product) sum_stored<From>(base + begin, product + begin, n_numbers, scaling, back, sums);
        for (size_t i = 0; i < some; i++)
            if ((first + i) % each == 0)
                memcpy(shown + (first + i) / each * type.n_numbers, numbers + i * type.n_numbers,
                       type.n_numbers * sizeof *numbers);
        first += some;
    }
    return true;
}

}  // namespace
