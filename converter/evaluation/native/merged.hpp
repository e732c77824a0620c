// base + scaling * product, rounded once to a float type, in one pass over memory; and what the rounding kept of it.
//
// Every operation is the one that numpy does in float64, in its order, so every byte is the same. The sums are
// statistics: eight of each are taken side by side, whatever the width of a register.
#pragma once

#include "lanes.hpp"

namespace {

constexpr int SIDE_BY_SIDE = 8;
constexpr int D_WIDTH = WIDTH / 2;

typedef double Doubles __attribute__((vector_size(8 * D_WIDTH)));
typedef int64_t Words __attribute__((vector_size(8 * D_WIDTH)));
template <class T>
struct As {
    typedef T Some __attribute__((vector_size(sizeof(T) * D_WIDTH)));
};

constexpr int64_t SIGN = INT64_MIN;

inline int64_t bits_of(double value) {
    int64_t bits;
    memcpy(&bits, &value, 8);
    return bits;
}

inline Doubles all_of(double value) { return value - Doubles{}; }

// --- Stored numbers in float64 ---------------------------------------------------------------------------------------

struct F32 {
    using Word = float;
    static Doubles decoded(As<float>::Some word) { return __builtin_convertvector(word, Doubles); }
};

struct F64 {
    using Word = double;
    static Doubles decoded(Doubles word) { return word; }
};

struct BF16 {
    using Word = uint16_t;
    static Doubles decoded(As<uint16_t>::Some word) {
        const auto wide = __builtin_convertvector(word, As<uint32_t>::Some) << 16;
        return __builtin_convertvector((As<float>::Some)wide, Doubles);
    }
};

struct F16 {
    using Word = int16_t;
    static Doubles decoded(As<int16_t>::Some word) {
        const auto narrow = __builtin_convertvector(word, As<int32_t>::Some) & 0x7fff;
        const Words magnitude = __builtin_convertvector(narrow, Words);
        const Doubles small = __builtin_convertvector(narrow, Doubles) * 0x1p-24;
        Doubles value = (Doubles)((magnitude << 42) + (int64_t(1008) << 52));
        value = magnitude < 0x400 ? small : value;
        value = magnitude < 0x7c00 ? value : all_of(__builtin_nan(""));  // infinities are as much refused
        return (Doubles)((Words)value | (__builtin_convertvector(word, Words) & SIGN));
    }
};

// --- Rounding --------------------------------------------------------------------------------------------------------

// A float type of BITS, MANTISSA of them behind the leading one, whose normal numbers begin at 2^EXPONENT.
template <int BITS, int MANTISSA, int EXPONENT>
struct Float {
    static constexpr int SHIFT = 52 - MANTISSA;  // how many fewer bits its mantissa has than float64's
    static constexpr int64_t BIAS = int64_t(1022 + EXPONENT) << MANTISSA;  // the exponents' difference, in its bits
    // 2^52 of its subnormals' spacing, which added to a smaller number leaves the count of them in the last bits.
    static constexpr int64_t MAGIC = int64_t(1023 + 52 + EXPONENT - MANTISSA) << 52;
    static constexpr int64_t LEAST_NORMAL = int64_t(1023 + EXPONENT) << 52;
    static constexpr int SIGN_DOWN = 64 - BITS;
};

struct ToF32 : Float<32, 23, -126> {
    using Word = uint32_t;
    static constexpr double MOST = 0x1p59;  // evaluation/finite.py asks about numbers from 2^60 on
};

struct ToF16 : Float<16, 10, -14> {
    using Word = uint16_t;
    static constexpr double MOST = 65504;
};

struct ToBF16 : Float<16, 7, -126> {
    using Word = uint16_t;
    static constexpr double MOST = 0x1p59;
};

struct Sums {
    Doubles norm2[SIDE_BY_SIDE / D_WIDTH], error_dot_delta[SIDE_BY_SIDE / D_WIDTH], error_norm2[SIDE_BY_SIDE / D_WIDTH];

    void add(int part, Doubles delta, Doubles error) {
        norm2[part] += delta * delta;
        error_dot_delta[part] += error * delta;
        error_norm2[part] += error * error;
    }

    void put(double *out) const {
        const double *const each[3] = {(const double *)norm2, (const double *)error_dot_delta,
                                       (const double *)error_norm2};
        for (int kind = 0; kind < 3; kind++)
            for (int i = 0; i < SIDE_BY_SIDE; i++) out[kind] += each[kind][i];
    }
};

// Eight numbers; in `beyond` the bits of those that are NaN or larger than goes without a question.
template <class From, class To, bool MEASURED>
inline void round_eight(const typename From::Word *base, const double *product, double scaling, typename To::Word *out,
                        Sums &sums, Words &beyond) {
    for (int part = 0; part < SIDE_BY_SIDE / D_WIDTH; part++) {
        typename As<typename From::Word>::Some stored;
        Doubles delta;
        memcpy(&stored, base + part * D_WIDTH, sizeof stored);
        memcpy(&delta, product + part * D_WIDTH, sizeof delta);
        delta *= scaling;
        const Doubles value = From::decoded(stored) + delta;
        const Words sign = (Words)value & SIGN, magnitude = (Words)value ^ sign;
        beyond |= magnitude > bits_of(To::MOST);
        // To nearest, of two the even one: a carry into the exponent is what it should be.
        const Words rounded = magnitude + ((int64_t(1) << (To::SHIFT - 1)) - 1) + (magnitude >> To::SHIFT & 1);
        double magic;
        memcpy(&magic, &To::MAGIC, 8);
        const Doubles counted = (Doubles)magnitude + magic;
        const Words is_small = magnitude < To::LEAST_NORMAL;
        const Words word = is_small ? (Words)counted & ((int64_t(1) << 52) - 1) : (rounded >> To::SHIFT) - To::BIAS;
        const Words back = is_small ? (Words)(counted - magic) : rounded & ~((int64_t(1) << To::SHIFT) - 1);
        const Words sign_down = sign >> To::SIGN_DOWN;  // and ones above it, which go
        const auto words = __builtin_convertvector(word | sign_down, typename As<typename To::Word>::Some);
        memcpy(out + part * D_WIDTH, &words, sizeof words);
        if constexpr (MEASURED) sums.add(part, delta, (Doubles)(back | sign) - value);
    }
}

struct Matrices {
    const void *base;
    const double *product;
    void *out;
    size_t n_rows, n_columns, base_columns;  // the product's; the base and what comes out may be wider
};

// Whether every number went without a question; adds to the three sums, where they are asked for.
template <class From, class To, bool MEASURED = true>
inline bool merge_rows(const Matrices &of, double scaling, double *out_sums) {
    Sums sums = {};
    Words beyond = {};
    const size_t whole = of.n_columns / SIDE_BY_SIDE * SIDE_BY_SIDE, rest = of.n_columns - whole;
    for (size_t row = 0; row < of.n_rows; row++) {
        const auto *base = (const typename From::Word *)of.base + row * of.base_columns;
        auto *out = (typename To::Word *)of.out + row * of.base_columns;
        const double *product = of.product + row * of.n_columns;
        for (size_t i = 0; i < whole; i += SIDE_BY_SIDE)
            round_eight<From, To, MEASURED>(base + i, product + i, scaling, out + i, sums, beyond);
        if (!rest) continue;
        typename From::Word last_base[SIDE_BY_SIDE] = {};
        typename To::Word last_out[SIDE_BY_SIDE];
        double last_product[SIDE_BY_SIDE] = {};
        memcpy(last_base, base + whole, rest * sizeof *base);
        memcpy(last_product, product + whole, rest * sizeof *product);
        round_eight<From, To, MEASURED>(last_base, last_product, scaling, last_out, sums, beyond);
        memcpy(out + whole, last_out, rest * sizeof *out);
    }
    if constexpr (MEASURED) sums.put(out_sums);
    int64_t any = 0;
    for (int lane = 0; lane < D_WIDTH; lane++) any |= beyond[lane];
    return !any;
}

// Eight numbers of float32 that stand for base + scaling * product.
template <class From>
inline void sum_eight(const typename From::Word *base, const double *product, double scaling, const float *stored,
                      Sums &sums) {
    for (int part = 0; part < SIDE_BY_SIDE / D_WIDTH; part++) {
        typename As<typename From::Word>::Some word;
        Doubles delta;
        As<float>::Some single;
        memcpy(&word, base + part * D_WIDTH, sizeof word);
        memcpy(&delta, product + part * D_WIDTH, sizeof delta);
        memcpy(&single, stored + part * D_WIDTH, sizeof single);
        delta *= scaling;
        sums.add(part, delta, __builtin_convertvector(single, Doubles) - (From::decoded(word) + delta));
    }
}

template <class From>
inline void sum_stored(const void *words, const double *product, size_t n, double scaling, const float *stored,
                       double *out_sums) {
    Sums sums = {};
    const auto *base = (const typename From::Word *)words;
    const size_t whole = n / SIDE_BY_SIDE * SIDE_BY_SIDE, rest = n - whole;
    for (size_t i = 0; i < whole; i += SIDE_BY_SIDE) sum_eight<From>(base + i, product + i, scaling, stored + i, sums);
    if (rest) {
        typename From::Word last_base[SIDE_BY_SIDE] = {};
        double last_product[SIDE_BY_SIDE] = {};
        float last_stored[SIDE_BY_SIDE] = {};
        memcpy(last_base, base + whole, rest * sizeof *base);
        memcpy(last_product, product + whole, rest * sizeof *product);
        memcpy(last_stored, stored + whole, rest * sizeof *stored);
        sum_eight<From>(last_base, last_product, scaling, last_stored, sums);
    }
    sums.put(out_sums);
}

}  // namespace
