// Vectors of the width of the instruction set this file is compiled for, and the two functions of the scan: 2^x and
// softplus. Included by kernel.hpp only, inside the namespace of one instruction set.
#pragma once

#if defined(__AVX512F__)
#define SERPENT_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define SERPENT_VECTOR_BYTES 32
#else
#define SERPENT_VECTOR_BYTES 16
#endif
#define SERPENT_INLINE static inline __attribute__((always_inline))

// Keeps a product from being fused with both of the sums that it goes into: it would be computed twice, and multipliers are
// what is short here.
#if defined(__AVX512F__)
#define SERPENT_ROUND(x) __asm__("" : "+v"(x))
#elif defined(__x86_64__)
#define SERPENT_ROUND(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__)
#define SERPENT_ROUND(x) __asm__("" : "+w"(x))
#else
#define SERPENT_ROUND(x)
#endif

typedef float F32 __attribute__((vector_size(SERPENT_VECTOR_BYTES)));
typedef int32_t I32 __attribute__((vector_size(SERPENT_VECTOR_BYTES)));
typedef double F64 __attribute__((vector_size(SERPENT_VECTOR_BYTES)));

template <class T> struct VectorOf;
template <> struct VectorOf<float> { typedef F32 type; };
template <> struct VectorOf<double> { typedef F64 type; };

template <class V, class T> SERPENT_INLINE V splat(T value) { return V{} + value; }

template <class V, class T> SERPENT_INLINE V load(const T* from) {
    V v;
    __builtin_memcpy(&v, from, sizeof(V));
    return v;
}
template <class V, class T> SERPENT_INLINE void store(T* to, V v) { __builtin_memcpy(to, &v, sizeof(V)); }

// Partial vectors: missing lanes are read as zero and not written.
template <class V, class T> SERPENT_INLINE V load_some(const T* from, int64_t count) {
    if (count == int64_t(sizeof(V) / sizeof(T))) return load<V>(from);
    V v{};
    for (int64_t i = 0; i < count; ++i) v[i] = from[i];
    return v;
}
template <class V, class T> SERPENT_INLINE void store_some(T* to, V v, int64_t count) {
    if (count == int64_t(sizeof(V) / sizeof(T))) return store(to, v);
    for (int64_t i = 0; i < count; ++i) to[i] = v[i];
}

// The larger and the smaller one; the second when either is not a number. One instruction each that compilers take for
// a comparison of vectors only when they may assume that nothing is NaN.
#if SERPENT_VECTOR_BYTES == 32
SERPENT_INLINE F32 larger(F32 a, F32 b) { return (F32)_mm256_max_ps((__m256)a, (__m256)b); }
SERPENT_INLINE F32 smaller(F32 a, F32 b) { return (F32)_mm256_min_ps((__m256)a, (__m256)b); }
#elif SERPENT_VECTOR_BYTES == 16 && defined(__SSE__)
SERPENT_INLINE F32 larger(F32 a, F32 b) { return (F32)_mm_max_ps((__m128)a, (__m128)b); }
SERPENT_INLINE F32 smaller(F32 a, F32 b) { return (F32)_mm_min_ps((__m128)a, (__m128)b); }
#else
SERPENT_INLINE F32 larger(F32 a, F32 b) { return a > b ? a : b; }
SERPENT_INLINE F32 smaller(F32 a, F32 b) { return a < b ? a : b; }
#endif

SERPENT_INLINE F64 larger(F64 a, F64 b) { return a > b ? a : b; }

SERPENT_INLINE F32 absolute(F32 x) { return (F32)((I32)x & 0x7fffffff); }
SERPENT_INLINE F64 absolute(F64 x) { return x < 0.0 ? -x : x; }

template <class T, class V> SERPENT_INLINE T sum_of_lanes(V v) {
    const int lanes = sizeof(V) / sizeof(T);
    T part[lanes];
    store(part, v);
    for (int width = lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) part[i] += part[i + width];
    return part[0];
}

// Adds the sums over the lanes of each of four vectors to to[0..3].
template <class V, class T> SERPENT_INLINE void add_lane_sums(V a, V b, V c, V d, T* to) {
    const int lanes = sizeof(V) / sizeof(T);
    for (int i = 0; i < lanes; ++i) {
        to[0] += a[i];
        to[1] += b[i];
        to[2] += c[i];
        to[3] += d[i];
    }
}
#if SERPENT_VECTOR_BYTES >= 32
SERPENT_INLINE void add_lane_sums(__m256 a, __m256 b, __m256 c, __m256 d, float* to) {
    // Each line halves the lanes that are left of each vector: a blend and a shuffle, one the other's complement.
    const __m256 ab = _mm256_add_ps(_mm256_blend_ps(a, b, 0xf0), _mm256_permute2f128_ps(a, b, 0x21));
    const __m256 cd = _mm256_add_ps(_mm256_blend_ps(c, d, 0xf0), _mm256_permute2f128_ps(c, d, 0x21));
    const __m256 pairs = _mm256_add_ps(_mm256_blend_ps(ab, cd, 0xcc), _mm256_shuffle_ps(ab, cd, 0x4e));
    const __m256 sums = _mm256_add_ps(pairs, _mm256_permute_ps(pairs, 0xb1));  // a a c c | b b d d
    const __m128 abcd = _mm_blend_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1), 0x0a);
    _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), abcd));
}
#if SERPENT_VECTOR_BYTES == 64
SERPENT_INLINE __m256 add_halves(F32 v) {
    const __m512 w = (__m512)v;
    return _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, w, 0), _mm512_maskz_extractf32x8_ps(0xff, w, 1));
}
SERPENT_INLINE void add_lane_sums(F32 a, F32 b, F32 c, F32 d, float* to) {
    add_lane_sums(add_halves(a), add_halves(b), add_halves(c), add_halves(d), to);
}
#endif
#elif defined(__SSE__)
SERPENT_INLINE void add_lane_sums(F32 a, F32 b, F32 c, F32 d, float* to) {
    __m128 p = (__m128)a, q = (__m128)b, r = (__m128)c, s = (__m128)d;
    _MM_TRANSPOSE4_PS(p, q, r, s);
    _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), _mm_add_ps(_mm_add_ps(p, q), _mm_add_ps(r, s))));
}
#endif

// 2^x for -126 <= x <= 128, about 1 ulp off, infinite at 128: x = i + f with |f| <= 1/2, and 2^f by a polynomial of degree
// 5 that is exactly 1 at 0 (relative error 9e-8), to whose exponent i is added. Adding 1.5 * 2^23 rounds to an integer.
SERPENT_INLINE F32 exp2_of_bounded(F32 x) {
    SERPENT_ROUND(x);
    const F32 shifter = splat<F32>(12582912.0f);
    const F32 shifted = x + shifter;
    const F32 f = x - (shifted - shifter);
    F32 p = splat<F32>(1.32647272471e-3f);
    p = p * f + 9.67151268815e-3f;
    p = p * f + 5.55073374357e-2f;
    p = p * f + 2.40222420846e-1f;
    p = p * f + 6.93146977599e-1f;
    p = p * f + 1.0f;
    return (F32)((I32)p + ((I32)shifted << 23));
}
SERPENT_INLINE F64 exp2_of_bounded(F64 x) {
    for (unsigned i = 0; i < sizeof(F64) / sizeof(double); ++i) x[i] = __builtin_exp2(x[i]);
    return x;
}

// 2^x for any x: at least 2^-126, so that no denormal number arises, and infinite from x = 128 on; NaN stays NaN.
SERPENT_INLINE F32 exp2_of(F32 x) {
    return exp2_of_bounded(smaller(splat<F32>(128.0f), larger(splat<F32>(-126.0f), x)));
}
SERPENT_INLINE F64 exp2_of(F64 x) { return exp2_of_bounded(x); }

// softplus(x) = max(x, 0) + log1p(e), e = exp(-|x|); log1p(e) = 2 artanh(s), s = e / (2 + e) <= 1/3.
// slope = softplus'(x) = the logistic function of x.
SERPENT_INLINE F32 softplus(F32 x, F32* slope) {
    const F32 zero{};
    const F32 e = exp2_of_bounded(larger(absolute(x) * -1.44269504088896341f, splat<F32>(-126.0f)));
    const F32 s = e / (e + 2.0f), q = s * s;
    F32 p = splat<F32>(0.28011992069f);
    p = p * q + 0.28001804292f;
    p = p * q + 0.40021527293f;
    p = p * q + 0.66666416285f;
    p = p * q + 2.0f;
    if (slope) *slope = (x > zero ? zero + 1.0f : e) / (e + 1.0f);
    return larger(zero, x) + s * p;
}
SERPENT_INLINE F64 softplus(F64 x, F64* slope) {
    F64 value = x;
    for (unsigned i = 0; i < sizeof(F64) / sizeof(double); ++i) {
        const double e = __builtin_exp(-__builtin_fabs(x[i]));
        if (slope) (*slope)[i] = (x[i] > 0 ? 1.0 : e) / (1.0 + e);
        value[i] = (x[i] > 0 ? x[i] : 0.0) + __builtin_log1p(e);
    }
    return value;
}
