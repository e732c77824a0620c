// Which of the kernels' levels this processor has, and of what sources they were made.
#include <stdint.h>

#include "exported.hpp"

#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace {

int level_of_this() {
#ifdef __x86_64__
    uint32_t a, b, c, d;
    __cpuid(0, a, b, c, d);
    if (a < 7) return 1;
    // The operating system has to keep the wide registers of a thread that waits.
    constexpr uint32_t OSXSAVE = 1u << 27, OF_AVX = 0x06, OF_AVX512 = 0xe6;
    __cpuid(1, a, b, c, d);
    if (!(c & OSXSAVE)) return 1;
    uint32_t kept, high;
    asm volatile("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));
    constexpr uint32_t AVX2 = 1u << 5, F = 1u << 16, DQ = 1u << 17, BW = 1u << 30, VL = 1u << 31;
    __cpuid_count(7, 0, a, b, c, d);
    if (!(b & AVX2) || (kept & OF_AVX) != OF_AVX) return 1;
    constexpr uint32_t AVX512 = F | DQ | BW | VL;
    return (b & AVX512) == AVX512 && (kept & OF_AVX512) == OF_AVX512 ? 4 : 3;
#else
    return 1;
#endif
}

}  // namespace

EXPORTED const char made_of[] = MADE_OF;

EXPORTED int level() { return level_of_this(); }
