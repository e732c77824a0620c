// What the kernels share: lanes side by side, each with a sub-block, and float32 as libggml has it.
//
// Every operation is IEEE's own, in the order that is written: hatch_build.py forbids the compiler to fuse a
// multiplication and an addition. So a processor with wider registers gives the same bytes in less time.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace {

template <int... I>
struct Numbers {
    static constexpr int N = sizeof...(I);
};

#if LEVEL == 4  // AVX-512
using Lanes = Numbers<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>;
#elif LEVEL == 3  // AVX2
using Lanes = Numbers<0, 1, 2, 3, 4, 5, 6, 7>;
#else  // SSE, NEON
using Lanes = Numbers<0, 1, 2, 3>;
#endif
constexpr int WIDTH = Lanes::N;  // floats of a register

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));
typedef uint8_t Bytes __attribute__((vector_size(WIDTH)));

constexpr float TO_NEAREST = 3 << 22;  // added and taken away, it leaves what is below 2^22 to nearest, ties to even
// libggml's rounding takes the low bits of that sum, which above 2^22 are no number: such a block is odd.
constexpr float LARGEST_LEVEL = 4e6f;
// Of a sub-block's range: far from where a square leaves float32.
constexpr float LEAST = 1e-20f;
constexpr float MOST = 1e20f;
constexpr float F16_LARGEST = 65504;

template <class T>
inline T nearest(T value) {
    return (value + TO_NEAREST) - TO_NEAREST;
}

inline float absolute(float value) { return __builtin_fabsf(value); }

inline Floats absolute(Floats value) {
    return (Floats)((Ints)value & 0x7fffffff);
}

inline Floats all(float value) { return value - Floats{}; }
inline Ints all(int32_t value) { return value - Ints{}; }

inline void put_floats(float *out, Floats value) { memcpy(out, &value, sizeof value); }

inline void put_bytes(uint8_t *out, Ints value) {
    const Bytes low = __builtin_convertvector(value & 255, Bytes);
    memcpy(out, &low, sizeof low);
}

// The larger and the smaller as a selection: of what isn't a number, `other`.
inline Floats larger(Floats value, Floats other) { return value > other ? value : other; }
inline Floats smaller(Floats value, Floats other) { return value < other ? value : other; }
inline float larger(float value, float other) { return value > other ? value : other; }
inline float smaller(float value, float other) { return value < other ? value : other; }

inline Floats root(Floats value) {
    for (int lane = 0; lane < WIDTH; lane++) value[lane] = __builtin_sqrtf(value[lane]);
    return value;
}

template <int BY, class V, class Operation, int... I>
inline V fold_step(V value, Operation operation, Numbers<I...>) {
    return operation(value, __builtin_shufflevector(value, value, ((I + BY) % WIDTH)...));
}

// All lanes by an operation that may take them in any order.
template <class V, class Operation>
inline auto folded(V value, Operation operation) {
    if constexpr (WIDTH > 8) value = fold_step<8>(value, operation, Lanes{});
    if constexpr (WIDTH > 4) value = fold_step<4>(value, operation, Lanes{});
    value = fold_step<2>(value, operation, Lanes{});
    return fold_step<1>(value, operation, Lanes{})[0];
}

template <int... I>
constexpr Ints counted(Numbers<I...>) {
    return Ints{I...};
}
constexpr Ints COUNT = counted(Lanes{});  // each lane's number

// TOGETHER * WIDTH sub-blocks of N numbers, so that the numbers of one place lie beside each other.
template <int N, int TOGETHER>
inline void transpose(const float *numbers, Floats (*x)[TOGETHER]) {
    float *out = (float *)x;
    for (int i = 0; i < N; i++)
        for (int lane = 0; lane < TOGETHER * WIDTH; lane++) out[i * TOGETHER * WIDTH + lane] = numbers[lane * N + i];
}

// The ranges that are tried for a sub-block.
struct Steps {
    const float *each;
    int n;
};

struct Half {
    uint16_t word;
    float value;
};

// The F16 nearest to a number of at most 65504, of two the even one.
inline Half to_half(float value) {
    const double magnitude = __builtin_fabsf(value);
    uint64_t bits;
    memcpy(&bits, &magnitude, 8);
    uint64_t word;
    double back;
    if (magnitude < 0x1p-14) {
        const double counted = magnitude + 0x1p28;
        memcpy(&word, &counted, 8);
        word &= (uint64_t(1) << 52) - 1;
        back = counted - 0x1p28;
    } else {
        const uint64_t rounded = bits + ((uint64_t(1) << 41) - 1) + ((bits >> 42) & 1);
        word = (rounded >> 42) - (1008 << 10);
        const uint64_t kept = rounded & ~((uint64_t(1) << 42) - 1);
        memcpy(&back, &kept, 8);
    }
    uint32_t single;
    memcpy(&single, &value, 4);
    return {uint16_t(word | (single >> 31) << 15), value >= 0 ? float(back) : float(-back)};  // the sign of -0 too
}

inline void put_half(uint8_t *block, uint16_t word) {
    block[0] = uint8_t(word);
    block[1] = uint8_t(word >> 8);
}

}  // namespace
