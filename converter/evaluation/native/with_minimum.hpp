// Q4_K and Q5_K: level * scale + minimum, for 8 sub-blocks of 32 numbers.
//
// quantize_row_q4_K_ref, quantize_row_q5_K_ref and make_qkx2_quants in libggml.
#pragma once

#include "lanes.hpp"

namespace {

// Registers that are worked on at once, so that one's additions don't wait for each other's.
constexpr int TOGETHER = 2;
#define EACH for (int g = 0; g < TOGETHER; g++)

template <int TOP>
inline Floats level_of(Floats value) {
    return smaller(larger(nearest(value), all(0.0f)), all(float(TOP)));
}

// The search for the scales and minima of TOGETHER * WIDTH sub-blocks. One is odd where its numbers would leave the
// path that is common to all.
template <int TOP>
struct Search {
    Floats x[32][TOGETHER], weight[32][TOGETHER], levels[32][TOGETHER];
    Floats low[TOGETHER], high[TOGETHER], sum_w[TOGETHER], sum_x[TOGETHER];
    Floats scale[TOGETHER], minimum[TOGETHER], best[TOGETHER];  // of what was tried, and its error
    Ints odd[TOGETHER];

    void run(const float *numbers, const Steps &steps) {
        transpose<32, TOGETHER>(numbers, x);
        weigh();
        try_range();
        for (int step = 0; step < steps.n; step++) try_step(steps.each[step]);
        EACH {
            const Ints flat = high[g] == low[g];  // there is no scale
            scale[g] = flat ? all(0.0f) : scale[g];
            minimum[g] = flat ? low[g] : minimum[g];
        }
    }

    // Weights of the numbers, sums of them, and the range of each sub-block.
    void weigh() {
        Floats mean[TOGETHER] = {};
        for (int i = 0; i < 32; i++) EACH mean[g] = mean[g] + x[i][g] * x[i][g];
        EACH {
            mean[g] = root(mean[g] / 32.0f);
            low[g] = high[g] = x[0][g];
            weight[0][g] = sum_w[g] = mean[g] + absolute(x[0][g]);
            sum_x[g] = sum_w[g] * x[0][g];
        }
        for (int i = 1; i < 32; i++) EACH {
            weight[i][g] = mean[g] + absolute(x[i][g]);
            low[g] = smaller(x[i][g], low[g]);
            high[g] = larger(x[i][g], high[g]);
            sum_w[g] = sum_w[g] + weight[i][g];
            sum_x[g] = sum_x[g] + weight[i][g] * x[i][g];
        }
    }

    // The scale and minimum that the range itself gives, and their error.
    void try_range() {
        Floats inverse[TOGETHER];
        EACH {
            low[g] = low[g] > 0.0f ? all(0.0f) : low[g];
            const Floats range = high[g] - low[g];
            Ints fine = (range == 0.0f) | ((range > LEAST) & (range < MOST));
            fine &= (sum_w[g] < MOST) & (low[g] > -MOST);
            odd[g] = ~fine;
            minimum[g] = low[g];
            inverse[g] = float(TOP) / range;
            scale[g] = 1.0f / inverse[g];
            best[g] = all(0.0f);
        }
        for (int i = 0; i < 32; i++) EACH {
            const Floats level = level_of<TOP>(inverse[g] * (x[i][g] - minimum[g]));
            const Floats error = scale[g] * level + minimum[g] - x[i][g];
            best[g] = best[g] + weight[i][g] * (error * error);
        }
    }

    // Levels for a range widened or narrowed by a step, and the least squares' scale and minimum for these levels.
    void try_step(float step) {
        Floats inverse[TOGETHER], sum_l[TOGETHER] = {}, sum_l2[TOGETHER] = {}, sum_xl[TOGETHER] = {};
        EACH {
            inverse[g] = step / (high[g] - minimum[g]);
            const Floats largest = larger(absolute(high[g]), absolute(low[g])) + absolute(minimum[g]);
            odd[g] |= ~((absolute(inverse[g]) * largest < LARGEST_LEVEL) | (high[g] == low[g]));
        }
        for (int i = 0; i < 32; i++) EACH {
            const Floats level = level_of<TOP>(inverse[g] * (x[i][g] - minimum[g])), weighted = weight[i][g] * level;
            levels[i][g] = level;
            sum_l[g] = sum_l[g] + weighted;
            sum_l2[g] = sum_l2[g] + weighted * level;
            sum_xl[g] = sum_xl[g] + weighted * x[i][g];
        }
        Floats its_scale[TOGETHER], its_minimum[TOGETHER], its_error[TOGETHER];
        EACH {
            const Floats determinant = sum_w[g] * sum_l2[g] - sum_l[g] * sum_l[g];
            its_scale[g] = (sum_w[g] * sum_xl[g] - sum_x[g] * sum_l[g]) / determinant;
            its_minimum[g] = (sum_l2[g] * sum_x[g] - sum_l[g] * sum_xl[g]) / determinant;
            its_scale[g] = its_minimum[g] > 0.0f ? sum_xl[g] / sum_l2[g] : its_scale[g];
            its_minimum[g] = its_minimum[g] > 0.0f ? all(0.0f) : its_minimum[g];
            its_error[g] = determinant > 0.0f ? all(0.0f) : all(__builtin_inff());
        }
        for (int i = 0; i < 32; i++) EACH {
            const Floats error = its_scale[g] * levels[i][g] + its_minimum[g] - x[i][g];
            its_error[g] = its_error[g] + weight[i][g] * (error * error);
        }
        EACH {
            const Ints better = its_error[g] < best[g];
            best[g] = better ? its_error[g] : best[g];
            scale[g] = better ? its_scale[g] : scale[g];
            minimum[g] = better ? its_minimum[g] : minimum[g];
        }
    }
};

// Six bits each: of the last four sub-blocks, the upper two lie above those of the first four.
inline void put_scale(uint8_t *block, int j, uint8_t scale, uint8_t minimum) {
    if (j < 4) {
        block[4 + j] = scale;
        block[8 + j] = minimum;
    } else {
        block[8 + j] = uint8_t((scale & 15) | (minimum & 15) << 4);
        block[j] = uint8_t(block[j] | (scale >> 4) << 6);
        block[4 + j] = uint8_t(block[4 + j] | (minimum >> 4) << 6);
    }
}

template <int TOP>
inline void put_levels(const uint8_t *levels, uint8_t *block) {
    uint8_t *at = block + 16;
    if (TOP > 16) {  // Q5_K: the fifth bits by themselves
        for (int i = 0; i < 32; i++) {
            int high = 0;
            for (int j = 0; j < 8; j++) high |= levels[j * 32 + i] >> 4 << j;
            at[i] = uint8_t(high);
        }
        at += 32;
    }
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 32; i++)
            at[j * 32 + i] = uint8_t((levels[j * 64 + i] & 15) | (levels[j * 64 + 32 + i] & 15) << 4);
}

// A block of the sub-blocks from `first` on, and the numbers that it stands for; whether it is odd.
template <int TOP>
inline bool put_with_minimum(const float *numbers, const Search<TOP> &found, int first, uint8_t *block,
                             float *back) {
    const float *scales = (const float *)found.scale + first, *minima = (const float *)found.minimum + first;
    const float *lows = (const float *)found.low + first, *highs = (const float *)found.high + first;
    const int32_t *odds = (const int32_t *)found.odd + first;
    float largest_scale = 0, largest_minimum = 0;
    bool is_odd = false;
    for (int j = 0; j < 8; j++) {
        is_odd |= odds[j] || !(scales[j] >= 0);
        largest_scale = larger(scales[j], largest_scale);
        largest_minimum = larger(-minima[j], largest_minimum);
    }
    if (is_odd || !(largest_scale / 63 <= F16_LARGEST && largest_minimum / 63 <= F16_LARGEST)) return true;
    const float of_scale = largest_scale > 0 ? 63 / largest_scale : 0;
    const float of_minimum = largest_minimum > 0 ? 63 / largest_minimum : 0;
    const Half d = to_half(largest_scale / 63), d_minimum = to_half(largest_minimum / 63);
    put_half(block, d.word);
    put_half(block + 2, d_minimum.word);
    uint8_t levels[256];
    for (int j = 0; j < 8; j++) {
        const float scale_level = smaller(nearest(of_scale * scales[j]), 63);
        const float minimum_level = smaller(nearest(of_minimum * -minima[j]), 63);
        put_scale(block, j, uint8_t(scale_level), uint8_t(minimum_level));
        const float scale = d.value * scale_level, minimum = d_minimum.value * minimum_level;
        const bool is_flat = highs[j] == lows[j];
        const float largest = larger(absolute(highs[j]), absolute(lows[j])) + minimum;
        is_odd |= !(is_flat || largest < LARGEST_LEVEL * scale);
        for (int i = 0; i < 32; i += WIDTH) {
            Floats value;
            memcpy(&value, numbers + j * 32 + i, sizeof value);
            const Floats level = level_of<TOP>((value + minimum) / scale);
            const Ints whole = is_flat ? Ints{} : __builtin_convertvector(level, Ints);
            put_bytes(levels + j * 32 + i, whole);
            if (back) put_floats(back + j * 32 + i, scale * __builtin_convertvector(whole, Floats) - minimum);
        }
    }
    put_levels<TOP>(levels, block);
    return is_odd;
}

// At least four blocks of 256 numbers.
template <int TOP, int N_BYTES>
inline void with_minimum(const float *numbers, size_t n, const Steps &steps, uint8_t *blocks, uint8_t *odd,
                         float *back) {
    constexpr size_t AT_ONCE = TOGETHER * WIDTH / 8;
    for (size_t group = 0; group < n; group += AT_ONCE) {
        const size_t first = group + AT_ONCE <= n ? group : n - AT_ONCE;  // the last ones may be made twice
        Search<TOP> found;
        found.run(numbers + first * 256, steps);
        for (size_t b = 0; b < AT_ONCE; b++)
            odd[first + b] = put_with_minimum<TOP>(numbers + (first + b) * 256, found, int(b * 8),
                                                   blocks + (first + b) * N_BYTES, back ? back + (first + b) * 256 : 0);
    }
}

#undef EACH

}  // namespace
