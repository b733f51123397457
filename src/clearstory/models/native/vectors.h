/* Vectors as wide as the processor's registers. */
#ifndef CLEARSTORY_VECTORS_H
#define CLEARSTORY_VECTORS_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define ALWAYS static inline __attribute__((always_inline))

/* FLOATS: numbers of a vector. */
#if defined(__AVX512F__) && defined(__AVX512BW__)
#define FLOATS 16
#elif defined(__AVX2__)
#define FLOATS 8
#else
#define FLOATS 4
#endif

typedef float floats __attribute__((vector_size(4 * FLOATS)));
typedef float floats4 __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(4 * FLOATS)));
typedef int16_t shorts __attribute__((vector_size(4 * FLOATS)));
typedef int16_t half_of_shorts __attribute__((vector_size(2 * FLOATS)));
typedef int8_t bytes __attribute__((vector_size(2 * FLOATS)));

/* Types of what lies anywhere in memory. */
typedef floats loose_floats __attribute__((aligned(4), may_alias));
typedef ints loose_ints __attribute__((aligned(4), may_alias));
typedef shorts loose_shorts __attribute__((aligned(2), may_alias));
typedef bytes loose_bytes __attribute__((aligned(1), may_alias));

/* Keeps a value in a register: the compiler would otherwise read it again for each product. */
#if FLOATS == 16
#define KEEP(v) __asm__("" : "+v"(v))
#elif defined(__x86_64__)
#define KEEP(v) __asm__("" : "+x"(v))
#else
#define KEEP(v) (void)(v)
#endif

/* Lanes of two vectors by number, those of the second counted on; gcc has the first name from version 12 on. */
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ints){__VA_ARGS__})
#endif

#if FLOATS == 16
#define FIRST_PAIRS(a, b) SHUFFLE(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define LAST_PAIRS(a, b) SHUFFLE(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define FIRST_HALVES(a, b) SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define LAST_HALVES(a, b) SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#elif FLOATS == 8
#define FIRST_PAIRS(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define LAST_PAIRS(a, b) SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define FIRST_HALVES(a, b) SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define LAST_HALVES(a, b) SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#else
#define FIRST_PAIRS(a, b) SHUFFLE(a, b, 0, 4, 1, 5)
#define LAST_PAIRS(a, b) SHUFFLE(a, b, 2, 6, 3, 7)
#define FIRST_HALVES(a, b) SHUFFLE(a, b, 0, 1, 4, 5)
#define LAST_HALVES(a, b) SHUFFLE(a, b, 2, 3, 6, 7)
#endif

/* The sums of the lanes of each of four vectors, as a vector of four: lanes of two vectors are interleaved and halves
   added until one number of each is left. */
ALWAYS floats4 sum_four(floats a, floats b, floats c, floats d) {
    const floats ab = FIRST_PAIRS(a, b) + LAST_PAIRS(a, b), cd = FIRST_PAIRS(c, d) + LAST_PAIRS(c, d);
    union { floats whole; floats4 parts[FLOATS / 4]; } sums;
    sums.whole = FIRST_HALVES(ab, cd) + LAST_HALVES(ab, cd);
    floats4 total = sums.parts[0];
    for (int i = 1; i < FLOATS / 4; i++) total += sums.parts[i];
    return total;
}

ALWAYS floats load(const float *p) { return *(const loose_floats *)p; }

ALWAYS void store(float *p, floats v) { *(loose_floats *)p = v; }

ALWAYS floats all(float number) { return number - (floats){0}; } /* 0 + number is another one for -0 */

/* Lanes of a where the mask is set, of b elsewhere. */
ALWAYS floats choose(ints mask, floats a, floats b) { return (floats)(((ints)a & mask) | ((ints)b & ~mask)); }

/* The lesser and the greater of two numbers in each lane; NaN where b is NaN. */
#if FLOATS == 16
ALWAYS floats lesser(floats a, floats b) { return (floats)_mm512_min_ps((__m512)a, (__m512)b); }
ALWAYS floats greater(floats a, floats b) { return (floats)_mm512_max_ps((__m512)a, (__m512)b); }
#elif FLOATS == 8
ALWAYS floats lesser(floats a, floats b) { return (floats)_mm256_min_ps((__m256)a, (__m256)b); }
ALWAYS floats greater(floats a, floats b) { return (floats)_mm256_max_ps((__m256)a, (__m256)b); }
#elif defined(__SSE2__)
ALWAYS floats lesser(floats a, floats b) { return (floats)_mm_min_ps((__m128)a, (__m128)b); }
ALWAYS floats greater(floats a, floats b) { return (floats)_mm_max_ps((__m128)a, (__m128)b); }
#else
ALWAYS floats lesser(floats a, floats b) { return choose(a < b, a, b); }
ALWAYS floats greater(floats a, floats b) { return choose(a > b, a, b); }
#endif

/* A vector of numbers of fp16. */
ALWAYS floats load_half(const uint16_t *p) {
#if FLOATS == 16
    return (floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif FLOATS == 8 && defined(__F16C__)
    return (floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    floats v;
    for (int i = 0; i < FLOATS; i++) {
        /* With the exponent shifted into place, a half is a float times 2^-112. */
        uint32_t bits = ((uint32_t)(p[i] & 0x8000) << 16) | ((uint32_t)(p[i] & 0x7fff) << 13);
        float number;
        memcpy(&number, &bits, 4);
        v[i] = number * 0x1p112f;
    }
    return v;
#endif
}

/* A vector of integers of 8 bits, as 16 bits. */
ALWAYS shorts load_bytes(const int8_t *p) {
#if FLOATS == 16
    return (shorts)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
#elif FLOATS == 8
    return (shorts)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
#else
    return __builtin_convertvector(*(const loose_bytes *)p, shorts);
#endif
}

/* A vector of bytes without a sign, as 16 bits. */
ALWAYS shorts load_unsigned_bytes(const uint8_t *p) { return load_bytes((const int8_t *)p) & 255; }

/* total + a * b, pairs of products added in each lane. */
ALWAYS ints add_products(ints total, shorts a, shorts b) {
#if FLOATS == 16 && defined(__AVX512VNNI__)
    return (ints)_mm512_dpwssd_epi32((__m512i)total, (__m512i)a, (__m512i)b);
#elif FLOATS == 16
    return total + (ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif FLOATS == 8
    return total + (ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return total + (ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    half_of_shorts a0, a1, b0, b1;
    memcpy(&a0, &a, sizeof a0), memcpy(&a1, (const char *)&a + sizeof a0, sizeof a1);
    memcpy(&b0, &b, sizeof b0), memcpy(&b1, (const char *)&b + sizeof b0, sizeof b1);
    return total + __builtin_convertvector(a0, ints) * __builtin_convertvector(b0, ints)
           + __builtin_convertvector(a1, ints) * __builtin_convertvector(b1, ints);
#endif
}

/* Four integers of 8 bits in each lane. */
#if FLOATS == 16 && defined(__AVX512VNNI__)
typedef ints bytes4;
ALWAYS bytes4 load_quads(const int8_t *p) { return *(const loose_ints *)p; }

/* total + a * b, four products added in each lane; the bytes of a have no sign. */
ALWAYS ints add_byte_products(ints total, ints a, bytes4 b) {
    return (ints)_mm512_dpbusd_epi32((__m512i)total, (__m512i)a, (__m512i)b);
}
#else
/* Those of even and of odd place, as 16 bits: pairs of products then have no overflow. */
typedef struct { shorts even, odd; } bytes4;
ALWAYS bytes4 load_quads(const int8_t *p) {
    const shorts both = *(const loose_shorts *)p;
    return (bytes4){(both << 8) >> 8, both >> 8};
}

ALWAYS ints add_byte_products(ints total, ints a, bytes4 b) {
    const shorts even = (shorts)(a & 0x00ff00ff), odd = (shorts)((a >> 8) & 0x00ff00ff);
    return add_products(add_products(total, even, b.even), odd, b.odd);
}
#endif

#endif
