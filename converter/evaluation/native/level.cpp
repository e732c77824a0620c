// Which of the kernels' levels this processor has, and of what sources they were made.
#include <stdint.h>

#include "exported.hpp"

#ifdef __x86_64__
#include <cpuid.h>

namespace {

// Both the processor and what keeps its registers between threads, the operating system, have to know them.
int level_of_this() {
    uint32_t a, b, c, d;
    __cpuid(0, a, b, c, d);
    if (a < 7) return 1;
    __cpuid(1, a, b, c, d);
    constexpr uint32_t OSXSAVE = 1u << 27, AVX = 1u << 28, FMA = 1u << 12, F16C = 1u << 29, MOVBE = 1u << 22;
    constexpr uint32_t OF_1 = OSXSAVE | AVX | FMA | F16C | MOVBE;
    if ((c & OF_1) != OF_1) return 1;
    uint32_t kept, high;
    asm volatile("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));
    constexpr uint32_t OF_AVX = 6, OF_AVX512 = 0xe6;
    __cpuid_count(7, 0, a, b, c, d);
    constexpr uint32_t BMI1 = 1u << 3, AVX2 = 1u << 5, BMI2 = 1u << 8, OF_3 = BMI1 | AVX2 | BMI2;
    constexpr uint32_t F = 1u << 16, DQ = 1u << 17, CD = 1u << 28, BW = 1u << 30, VL = 1u << 31;
    constexpr uint32_t OF_4 = F | DQ | CD | BW | VL;
    const uint32_t features = b;
    __cpuid_count(0x80000001, 0, a, b, c, d);
    constexpr uint32_t LZCNT = 1u << 5;
    if ((features & OF_3) != OF_3 || !(c & LZCNT) || (kept & OF_AVX) != OF_AVX) return 1;
    return (features & OF_4) == OF_4 && (kept & OF_AVX512) == OF_AVX512 ? 4 : 3;
}

}  // namespace
#else
namespace {

int level_of_this() { return 1; }

}  // namespace
#endif

EXPORTED const char made_of[] = MADE_OF;

EXPORTED int level() { return level_of_this(); }
