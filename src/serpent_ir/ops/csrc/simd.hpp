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

template <class T, class V> SERPENT_INLINE T sum_of_lanes(V v) {
    const int lanes = sizeof(V) / sizeof(T);
    T part[lanes];
    store(part, v);
    for (int width = lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) part[i] += part[i + width];
    return part[0];
}

// 2^x, at least 2^-126, so that no denormal number arises, and infinite from x = 128 on; NaN stays NaN. Below 1 ulp off:
// x = i + f with |f| <= 1/2, 2^f by a polynomial of degree 6 with 2^0 exactly 1 (relative error 2e-9), and 2^i from
// the bits of a number that ends in i + 127, the exponent field of 2^i.
SERPENT_INLINE F32 exp2_of(F32 x) {
    const F32 shifter = splat<F32>(12582912.0f + 127.0f);  // adding 1.5 * 2^23 rounds to an integer
    x = smaller(splat<F32>(128.0f), larger(splat<F32>(-126.0f), x));
    const F32 shifted = x + shifter;
    const F32 f = x - (shifted - shifter);
    F32 p = splat<F32>(1.53533620608e-4f);
    p = p * f + 1.33988745572e-3f;
    p = p * f + 9.61843735824e-3f;
    p = p * f + 5.55033247078e-2f;
    p = p * f + 2.40226479136e-1f;
    p = p * f + 6.93147202855e-1f;
    p = p * f + 1.0f;
    return p * (F32)((I32)shifted << 23);
}
SERPENT_INLINE F64 exp2_of(F64 x) {
    for (unsigned i = 0; i < sizeof(F64) / sizeof(double); ++i) x[i] = __builtin_exp2(x[i]);
    return x;
}

SERPENT_INLINE F32 absolute(F32 x) { return (F32)((I32)x & 0x7fffffff); }

// softplus(x) = max(x, 0) + log1p(e), e = exp(-|x|); log1p(e) = 2 artanh(s), s = e / (2 + e) <= 1/3.
// slope = softplus'(x) = the logistic function of x.
SERPENT_INLINE F32 softplus(F32 x, F32* slope) {
    const F32 zero{};
    const F32 e = exp2_of(absolute(x) * -1.44269504088896341f);
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
