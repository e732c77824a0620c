// Q6_K: level * scale for 16 sub-blocks of 16 numbers. Q5_0 and Q8_0: one scale for 32 numbers.
//
// quantize_row_q6_K_ref, make_qx_quants, quantize_row_q5_0_ref and quantize_row_q8_0_ref in libggml.
#pragma once

#include "lanes.hpp"

namespace {

// Of WIDTH sub-blocks the first number that none is larger than, and its magnitude.
struct Largest {
    Floats value, magnitude;
    Ints fine;
};

template <int N>
inline Largest largest_of(const Floats *x) {
    Largest found = {{}, {}, ~Ints{}};
    for (int i = 0; i < N; i++) {
        const Floats magnitude = absolute(x[i]);
        const Ints is_larger = magnitude > found.magnitude;
        found.value = is_larger ? x[i] : found.value;
        found.magnitude = is_larger ? magnitude : found.magnitude;
        found.fine &= magnitude < MOST;
    }
    return found;
}

// --- Q6_K ------------------------------------------------------------------------------------------------------------

constexpr float NOTHING = 1e-15f;  // GROUP_MAX_EPS

// Of a block's 16 sub-blocks.
constexpr int N_REGISTERS = 16 / WIDTH;
struct Scales {
    Floats scale[N_REGISTERS], magnitude[N_REGISTERS];
    Ints odd[N_REGISTERS];
};

struct Fit {
    Floats sum_xl, sum_l2;
};

inline Fit fit_scale(const Floats *x, const Floats *squares, const Floats *cubes, Floats inverse) {
    Fit fit = {};
    for (int i = 0; i < 16; i++) {
        const Floats level = smaller(larger(nearest(inverse * x[i]), all(-32.0f)), all(31.0f));
        fit.sum_xl = fit.sum_xl + cubes[i] * level;
        fit.sum_l2 = fit.sum_l2 + squares[i] * level * level;
    }
    return fit;
}

// The best of the scales that libggml tries for WIDTH sub-blocks.
inline void search_scale(const float *numbers, const Steps &steps, int part, Scales &found) {
    Floats x[16], squares[16], cubes[16];
    transpose<16, 1>(numbers, (Floats(*)[1])x);
    for (int i = 0; i < 16; i++) {
        squares[i] = x[i] * x[i];
        cubes[i] = squares[i] * x[i];
    }
    const Largest largest = largest_of<16>(x);
    Fit fit = fit_scale(x, squares, cubes, -32.0f / largest.value);
    Floats scale = fit.sum_l2 != 0.0f ? fit.sum_xl / fit.sum_l2 : all(0.0f);
    Floats best = scale * fit.sum_xl;
    for (int step = 0; step < steps.n; step++) {
        fit = fit_scale(x, squares, cubes, steps.each[step] / largest.value);
        const Ints better = (fit.sum_l2 > 0.0f) & (fit.sum_xl * fit.sum_xl > best * fit.sum_l2);
        const Floats its_scale = fit.sum_xl / fit.sum_l2;
        scale = better ? its_scale : scale;
        best = better ? its_scale * fit.sum_xl : best;
    }
    found.scale[part] = largest.magnitude < NOTHING ? all(0.0f) : scale;
    found.magnitude[part] = largest.magnitude;
    found.odd[part] = ~largest.fine;
}

inline void put_levels_of_q6(const uint8_t *levels, uint8_t *block) {
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 32; i++) {
            const uint8_t *at = levels + half * 128 + i;
            block[half * 64 + i] = uint8_t((at[0] & 15) | (at[64] & 15) << 4);
            block[half * 64 + 32 + i] = uint8_t((at[32] & 15) | (at[96] & 15) << 4);
            block[128 + half * 32 + i] =
                uint8_t(at[0] >> 4 | at[32] >> 4 << 2 | at[64] >> 4 << 4 | at[96] >> 4 << 6);
        }
}

// A block of all the sub-blocks, and the numbers that it stands for; whether it is odd.
inline bool put_with_scale(const float *numbers, const Scales &found, uint8_t *block, float *back) {
    const float *scales = (const float *)found.scale, *magnitudes = (const float *)found.magnitude;
    const int32_t *odds = (const int32_t *)found.odd;
    float largest = 0, magnitude = 0;
    bool is_odd = false;
    for (int j = 0; j < 16; j++) {
        is_odd |= odds[j] != 0;
        largest = absolute(scales[j]) > magnitude ? scales[j] : largest;
        magnitude = larger(absolute(scales[j]), magnitude);
    }
    if (is_odd || !(magnitude >= NOTHING)) return true;
    const float inverse = -128.0f / largest;
    if (!(absolute(1.0f / inverse) <= F16_LARGEST)) return true;
    const Half d = to_half(1.0f / inverse);
    put_half(block + 208, d.word);
    uint8_t levels[256];
    for (int j = 0; j < 16; j++) {
        const float scale_level = smaller(nearest(inverse * scales[j]), 127);
        block[192 + j] = uint8_t(int8_t(scale_level));
        const float scale = d.value * scale_level;
        const bool is_nothing = magnitudes[j] < NOTHING;
        is_odd |= !(magnitudes[j] < LARGEST_LEVEL * absolute(scale) || (is_nothing && scale == 0));
        for (int i = 0; i < 16; i += WIDTH) {
            Floats value;
            memcpy(&value, numbers + j * 16 + i, sizeof value);
            const Floats level = smaller(larger(nearest(value / scale), all(-32.0f)), all(31.0f)) + 32.0f;
            const Ints whole = is_nothing ? Ints{} : __builtin_convertvector(level, Ints);
            put_bytes(levels + j * 16 + i, whole);
            if (back) put_floats(back + j * 16 + i, scale * __builtin_convertvector(whole - 32, Floats));
        }
    }
    put_levels_of_q6(levels, block);
    return is_odd;
}

// Blocks of 256 numbers.
inline void with_scale(const float *numbers, size_t n, const Steps &steps, uint8_t *blocks, uint8_t *odd, float *back) {
    for (size_t b = 0; b < n; b++) {
        Scales found;
        for (int part = 0; part < N_REGISTERS; part++)
            search_scale(numbers + b * 256 + part * WIDTH * 16, steps, part, found);
        odd[b] = put_with_scale(numbers + b * 256, found, blocks + b * 210, back ? back + b * 256 : 0);
    }
}

// --- Q5_0 and Q8_0 ---------------------------------------------------------------------------------------------------

constexpr int PARTS = 32 / WIDTH;
constexpr int NONE = 32;

struct Block {
    Floats x[PARTS];
    float magnitude;  // the largest
    bool fine;
};

inline Block block_of(const float *numbers) {
    Block block;
    memcpy(block.x, numbers, sizeof block.x);
    Floats most = {};
    Ints fine = ~Ints{};
    for (int part = 0; part < PARTS; part++) {
        const Floats magnitude = absolute(block.x[part]);
        most = larger(magnitude, most);
        fine &= magnitude < MOST;
    }
    block.magnitude = folded(most, [](Floats a, Floats b) { return larger(a, b); });
    const bool is_within = block.magnitude == 0 || (block.magnitude > LEAST && block.magnitude < F16_LARGEST);
    block.fine = is_within && folded(fine, [](Ints a, Ints b) { return a & b; });
    return block;
}

// The first number that none is larger than, with its sign.
inline float first_largest(const Block &block) {
    Ints where = all(NONE);
    for (int part = 0; part < PARTS; part++) {
        const Ints place = absolute(block.x[part]) == block.magnitude ? COUNT + part * WIDTH : all(NONE);
        where = where < place ? where : place;
    }
    const int first = folded(where, [](Ints a, Ints b) { return a < b ? a : b; });
    return block.magnitude == 0 ? 0 : ((const float *)block.x)[first];
}

inline void q5_0(const float *numbers, size_t n, const Steps &, uint8_t *blocks, uint8_t *odd, float *back) {
    for (size_t b = 0; b < n; b++, blocks += 22) {
        const Block block = block_of(numbers + b * 32);
        odd[b] = !block.fine;
        if (!block.fine) continue;
        const float scale = first_largest(block) / -16.0f, inverse = scale != 0 ? 1.0f / scale : 0;
        const Half d = to_half(scale);
        put_half(blocks, d.word);
        Ints fifth_bits = {};
        uint8_t levels[32];
        for (int part = 0; part < PARTS; part++) {
            const Ints level = __builtin_convertvector(smaller(block.x[part] * inverse + 16.5f, all(31.0f)), Ints);
            fifth_bits |= level >> 4 << (COUNT + part * WIDTH);
            put_bytes(levels + part * WIDTH, level & 15);
            if (back) put_floats(back + b * 32 + part * WIDTH, d.value * __builtin_convertvector(level - 16, Floats));
        }
        const int32_t high = folded(fifth_bits, [](Ints a, Ints b) { return a | b; });
        memcpy(blocks + 2, &high, 4);
        for (int i = 0; i < 16; i++) blocks[6 + i] = uint8_t(levels[i] | levels[16 + i] << 4);
    }
}

inline void q8_0(const float *numbers, size_t n, const Steps &, uint8_t *blocks, uint8_t *odd, float *back) {
    constexpr float INTEGER = 1 << 23;
    for (size_t b = 0; b < n; b++, blocks += 34) {
        const Block block = block_of(numbers + b * 32);
        odd[b] = !block.fine;
        if (!block.fine) continue;
        const float scale = block.magnitude / 127.0f, inverse = scale != 0 ? 1.0f / scale : 0;
        const Half d = to_half(scale);
        put_half(blocks, d.word);
        for (int part = 0; part < PARTS; part++) {
            const Floats value = block.x[part] * inverse, size = absolute(value);
            Floats level = (size + INTEGER) - INTEGER;
            level = size - level == 0.5f ? level + 1.0f : level;  // a half goes away from zero
            const Ints whole = __builtin_convertvector(value < 0.0f ? -level : level, Ints);
            put_bytes(blocks + 2 + part * WIDTH, whole);
            if (back) put_floats(back + b * 32 + part * WIDTH, d.value * __builtin_convertvector(whole, Floats));
        }
    }
}

}  // namespace
