/* Vectors of 16 floats or integers, which the compiler splits where registers are narrower. */
#ifndef CLEARSTORY_VECTORS_H
#define CLEARSTORY_VECTORS_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define ALWAYS static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(64)));
typedef float floats8 __attribute__((vector_size(32)));
typedef float floats4 __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef int32_t ints8 __attribute__((vector_size(32)));
typedef int32_t ints4 __attribute__((vector_size(16)));
typedef int16_t shorts __attribute__((vector_size(64)));
typedef int16_t shorts16 __attribute__((vector_size(32)));
typedef int8_t bytes32 __attribute__((vector_size(32)));

/* Types of what lies anywhere in memory. */
typedef floats loose_floats __attribute__((aligned(4), may_alias));
typedef shorts loose_shorts __attribute__((aligned(2), may_alias));
typedef bytes32 loose_bytes __attribute__((aligned(1), may_alias));

/* Keeps a value in a register: the compiler would otherwise read it again for each product. */
#if defined(__AVX512F__)
#define KEEP(v) __asm__("" : "+v"(v))
#else
#define KEEP(v) (void)(v)
#endif

/* The sums of the 16 lanes of each of four vectors: lanes of two vectors are interleaved and halves added until one
   number of each is left. */
#define SUM_FOUR(type8, type4, a, b, c, d)                                                                         \
    ({                                                                                                             \
        __typeof__(a) ab = __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) \
                           + __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31); \
        __typeof__(a) cd = __builtin_shufflevector(c, d, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) \
                           + __builtin_shufflevector(c, d, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31); \
        ab = __builtin_shufflevector(ab, cd, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)             \
             + __builtin_shufflevector(ab, cd, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);        \
        type8 v8 = __builtin_shufflevector(ab, ab, 0, 1, 2, 3, 4, 5, 6, 7)                                         \
                   + __builtin_shufflevector(ab, ab, 8, 9, 10, 11, 12, 13, 14, 15);                                \
        type4 v4 = __builtin_shufflevector(v8, v8, 0, 1, 2, 3) + __builtin_shufflevector(v8, v8, 4, 5, 6, 7);      \
        v4;                                                                                                        \
    })

ALWAYS floats load(const float *p) { return *(const loose_floats *)p; }

ALWAYS void store(float *p, floats v) { *(loose_floats *)p = v; }

/* 16 numbers of fp16. */
ALWAYS floats load_half(const uint16_t *p) {
#if defined(__AVX512F__)
    return (floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__F16C__)
    union { floats v; __m256 half[2]; } u;
    u.half[0] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
    u.half[1] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)));
    return u.v;
#else
    floats v;
    for (int i = 0; i < 16; i++) {
        /* With the exponent shifted into place, a half is a float times 2^-112. */
        uint32_t bits = ((uint32_t)(p[i] & 0x8000) << 16) | ((uint32_t)(p[i] & 0x7fff) << 13);
        float number;
        memcpy(&number, &bits, 4);
        v[i] = number * 0x1p112f;
    }
    return v;
#endif
}

/* 32 integers of 8 bits as 16 bits. */
ALWAYS shorts load_bytes(const int8_t *p) {
#if defined(__AVX512BW__)
    return (shorts)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
#else
    return __builtin_convertvector(*(const loose_bytes *)p, shorts);
#endif
}

/* 32 bytes without a sign as 16 bits. */
ALWAYS shorts load_unsigned_bytes(const uint8_t *p) {
#if defined(__AVX512BW__)
    return (shorts)_mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)p));
#else
    return __builtin_convertvector(*(const loose_bytes *)p, shorts) & 255;
#endif
}

/* total + a * b, pairs of products added in each lane. */
ALWAYS ints add_products(ints total, shorts a, shorts b) {
#if defined(__AVX512VNNI__)
    return (ints)_mm512_dpwssd_epi32((__m512i)total, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return total + (ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    union { ints v; __m256i half[2]; } t;
    union { shorts v; __m256i half[2]; } ua, ub;
    t.v = total, ua.v = a, ub.v = b;
    for (int i = 0; i < 2; i++) t.half[i] = _mm256_add_epi32(t.half[i], _mm256_madd_epi16(ua.half[i], ub.half[i]));
    return t.v;
#else
    for (int half = 0; half < 2; half++) {
        shorts16 a16, b16;
        memcpy(&a16, (const char *)&a + 32 * half, 32);
        memcpy(&b16, (const char *)&b + 32 * half, 32);
        total += __builtin_convertvector(a16, ints) * __builtin_convertvector(b16, ints);
    }
    return total;
#endif
}

#endif
