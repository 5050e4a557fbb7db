// The pointwise parts of a VSS block for one instruction set: depthwise 3x3 convolution with SiLU, and LayerNorm with
// the gate, forwards and backwards. The formulas stand in ops/README.md.
//
// A vector holds neighbouring channels of one pixel, as in kernel.hpp, behind which this file is included. Sums over
// pixels are first taken over the parts that the work is cut into, then over parts, in their order.
#pragma once
#include "block.hpp"
#include "parallel.hpp"

namespace serpent {
namespace SERPENT_ISA {
namespace {

SERPENT_INLINE F32 logistic(F32 x) { return 1.0f / (1.0f + exp2_of(x * -1.44269504088896341f)); }
SERPENT_INLINE F64 logistic(F64 x) { return 1.0 / (1.0 + exp2_of(x * -1.44269504088896341)); }

SERPENT_INLINE float root(float x) { return __builtin_sqrtf(x); }
SERPENT_INLINE double root(double x) { return __builtin_sqrt(x); }

// load_some and store_some by a processor's own instructions: odd numbers of channels need them at every pixel.
#if defined(__AVX512F__)
SERPENT_INLINE unsigned first_lanes(int64_t count) { return (1u << count) - 1; }
SERPENT_INLINE F32 load_part(const float* from, int64_t count) {
    return (F32)_mm512_maskz_loadu_ps(__mmask16(first_lanes(count)), from);
}
SERPENT_INLINE F64 load_part(const double* from, int64_t count) {
    return (F64)_mm512_maskz_loadu_pd(__mmask8(first_lanes(count)), from);
}
SERPENT_INLINE void store_part(float* to, F32 v, int64_t count) {
    _mm512_mask_storeu_ps(to, __mmask16(first_lanes(count)), (__m512)v);
}
SERPENT_INLINE void store_part(double* to, F64 v, int64_t count) {
    _mm512_mask_storeu_pd(to, __mmask8(first_lanes(count)), (__m512d)v);
}
#elif defined(__AVX2__)
SERPENT_INLINE __m256i first_lanes(int64_t count) {
    return (__m256i)(I32{0, 1, 2, 3, 4, 5, 6, 7} < splat<I32>(int32_t(count)));
}
SERPENT_INLINE F32 load_part(const float* from, int64_t count) {
    return (F32)_mm256_maskload_ps(from, first_lanes(count));
}
SERPENT_INLINE void store_part(float* to, F32 v, int64_t count) {
    _mm256_maskstore_ps(to, first_lanes(count), (__m256)v);
}
SERPENT_INLINE F64 load_part(const double* from, int64_t count) { return load_some<F64>(from, count); }
SERPENT_INLINE void store_part(double* to, F64 v, int64_t count) { store_some(to, v, count); }
#else
template <class T> SERPENT_INLINE typename VectorOf<T>::type load_part(const T* from, int64_t count) {
    return load_some<typename VectorOf<T>::type>(from, count);
}
template <class T, class V> SERPENT_INLINE void store_part(T* to, V v, int64_t count) { store_some(to, v, count); }
#endif

template <class T>
struct Block {
    typedef typename VectorOf<T>::type V;
    static constexpr int64_t lanes = sizeof(V) / sizeof(T);

    // `Whole` vectors are the rule; the last of a pixel may be a part of one.
    template <bool Whole> SERPENT_INLINE V get(const T* from, int64_t count) {
        return Whole ? load<V>(from) : load_part(from, count);
    }
    template <bool Whole> SERPENT_INLINE void put(T* to, V v, int64_t count) {
        if (Whole) store(to, v);
        else store_part(to, v, count);
    }
    // The same for a count that the compiler knows to be `lanes` in all turns of a loop but the last.
    SERPENT_INLINE V get(const T* from, int64_t count) {
        return count == lanes ? load<V>(from) : load_part(from, count);
    }
    SERPENT_INLINE void put(T* to, V v, int64_t count) {
        if (count == lanes) store(to, v);
        else store_part(to, v, count);
    }
    template <class Run> SERPENT_INLINE void for_vectors(int64_t channels, Run run) {
        int64_t c = 0;
        for (; c + lanes <= channels; c += lanes) run(c, lanes);
        if (c < channels) run(c, channels - c);
    }

    // ------------------------------------------------------------------------------------------------- convolution

    // What one item covers: rows of an image, a block of channels; and its weights, (9 + 1, channels_of_item).
    struct Tile {
        int64_t image, part, first_row, last_row, first_channel, channels;
        T weight[10 * channels_of_item];
    };

    static int64_t blocks(int64_t channels) { return (channels + channels_of_item - 1) / channels_of_item; }

    static void cut(const Convolution<T>& p, int64_t item, Tile& t) {
        const int64_t parts = parts_of_rows(p.height), rows = rows_of_item(p.height);
        t.first_channel = item % blocks(p.channels) * channels_of_item;
        t.part = item / blocks(p.channels);
        t.image = t.part / parts;
        t.first_row = t.part % parts * rows;
        t.last_row = t.first_row + rows < p.height ? t.first_row + rows : p.height;
        t.channels = p.channels - t.first_channel < channels_of_item ? p.channels - t.first_channel : channels_of_item;
    }

    static void read_weights(const Convolution<T>& p, Tile& t, bool transposed) {
        for (int64_t i = 0; i < 9; ++i)
            for (int64_t c = 0; c < channels_of_item; ++c)
                t.weight[i * channels_of_item + c] =
                    c < t.channels ? p.weight[(t.first_channel + c) * 9 + (transposed ? 8 - i : i)] : T(0);
        for (int64_t c = 0; c < channels_of_item; ++c)
            t.weight[9 * channels_of_item + c] = p.bias && c < t.channels ? p.bias[t.first_channel + c] : T(0);
    }

    // Three neighbouring rows, those outside of the image as zeros.
    struct Rows3 {
        const T *above, *same, *below;
        int64_t above_stride, stride, below_stride;
        Rows3(const Convolution<T>& p, const Tile& t, int64_t row) {
            static const T zeros[channels_of_item] = {};
            const bool has_above = row > 0 || p.above, has_below = row + 1 < p.height || p.below;
            same = p.x + t.image * p.image_stride + row * p.row_stride + t.first_channel;
            stride = p.pixel_stride;
            above = has_above ? same - p.row_stride : zeros;
            above_stride = has_above ? stride : 0;
            below = has_below ? same + p.row_stride : zeros;
            below_stride = has_below ? stride : 0;
        }
        void shift(int64_t channels) { above += channels, same += channels, below += channels; }
    };

    // run(x, whether there is a pixel to the left, and to the right) for pixels first .. last - 1 of a row.
    template <class Run> SERPENT_INLINE void for_pixels(int64_t first, int64_t last, int64_t width, Run run) {
        int64_t x = first;
        if (x == 0) run(x++, false, width > 1);
        for (; x < last && x < width - 1; ++x) run(x, true, true);
        if (x < last) run(x, true, false);
    }

    // The 3 x 3 neighbours of pixel x, zeros beyond the ends of its row, each handed to run(number, vector).
    template <bool Whole, class Run>
    SERPENT_INLINE void for_neighbours(const Rows3& rows, int64_t x, bool left, bool right, int64_t count, Run run) {
        const T *above = rows.above + x * rows.above_stride, *same = rows.same + x * rows.stride;
        const T* below = rows.below + x * rows.below_stride;
        if (left) {
            run(0, get<Whole>(above - rows.above_stride, count));
            run(3, get<Whole>(same - rows.stride, count));
            run(6, get<Whole>(below - rows.below_stride, count));
        }
        run(1, get<Whole>(above, count));
        run(4, get<Whole>(same, count));
        run(7, get<Whole>(below, count));
        if (right) {
            run(2, get<Whole>(above + rows.above_stride, count));
            run(5, get<Whole>(same + rows.stride, count));
            run(8, get<Whole>(below + rows.below_stride, count));
        }
    }

    // Pixels first .. last - 1 of a row, one vector of channels; SiLU is left out unless `Active`.
    template <bool Whole, bool Active>
    static void convolve_stretch(Rows3 rows, const T* weight, int64_t first, int64_t last, int64_t width,
                                 int64_t channels, int64_t count, T* __restrict__ y) {
        V w[10];
        for (int64_t i = 0; i < 10; ++i) w[i] = load<V>(weight + i * channels_of_item);
        for_pixels(first, last, width, [&](int64_t x, bool left, bool right) __attribute__((always_inline)) {
            V sum[3] = {w[9], V{}, V{}};  // short chains
            for_neighbours<Whole>(rows, x, left, right, count, [&](int64_t i, V v) __attribute__((always_inline)) {
                sum[i / 3] += w[i] * v;
            });
            const V value = sum[0] + sum[1] + sum[2];
            put<Whole>(y + x * channels, Active ? value * logistic(value) : value, count);
        });
    }

    static constexpr int64_t stretch = 64;  // pixels of a row at a time: three rows of them stay in the cache

    template <bool Active> static void convolve_item(const Convolution<T>& p, int64_t item, T* y) {
        Tile t;
        cut(p, item, t);
        read_weights(p, t, !Active);
        for (int64_t first = 0; first < p.width; first += stretch) {
            const int64_t last = first + stretch < p.width ? first + stretch : p.width;
            for (int64_t row = t.first_row; row < t.last_row; ++row) {
                const Rows3 here(p, t, row);
                T* to = y + (t.image * p.height + row) * p.width * p.channels + t.first_channel;
                for_vectors(t.channels, [&](int64_t c, int64_t count) {
                    auto run = count == lanes ? convolve_stretch<true, Active> : convolve_stretch<false, Active>;
                    Rows3 rows = here;
                    rows.shift(c);
                    run(rows, t.weight + c, first, last, p.width, p.channels, count, to + c);
                });
            }
        }
    }

    // The gradient before SiLU of pixels first .. last - 1; then its products with the neighbours, added to `sums`, in
    // a loop of their own: there are not enough registers for both.
    template <bool Whole>
    static void slopes_stretch(Rows3 rows, const T* weight, int64_t first, int64_t last, int64_t width,
                               int64_t channels, int64_t count, const T* grad, T* __restrict__ before, T* sums) {
        V w[10], total[10];
        for (int64_t i = 0; i < 10; ++i) w[i] = load<V>(weight + i * channels_of_item);
        for_pixels(first, last, width, [&](int64_t x, bool left, bool right) __attribute__((always_inline)) {
            V sum[3] = {w[9], V{}, V{}};
            for_neighbours<Whole>(rows, x, left, right, count, [&](int64_t i, V v) __attribute__((always_inline)) {
                sum[i / 3] += w[i] * v;
            });
            const V value = sum[0] + sum[1] + sum[2], s = logistic(value);
            const V slope = get<Whole>(grad + x * channels, count) * s * (T(1) + value * (T(1) - s));
            put<Whole>(before + x * channels, slope, count);
        });
        for (int64_t i = 0; i < 10; ++i) total[i] = load<V>(sums + i * channels_of_item);
        for_pixels(first, last, width, [&](int64_t x, bool left, bool right) __attribute__((always_inline)) {
            const V slope = get<Whole>(before + x * channels, count);
            for_neighbours<Whole>(rows, x, left, right, count, [&](int64_t i, V v) __attribute__((always_inline)) {
                total[i] += slope * v;
            });
            total[9] += slope;
        });
        for (int64_t i = 0; i < 10; ++i) store(sums + i * channels_of_item, total[i]);
    }

    static void slopes_item(const Convolution<T>& p, int64_t item, const ConvolutionGradients<T>& grad) {
        Tile t;
        cut(p, item, t);
        read_weights(p, t, false);
        T sums[10 * channels_of_item] = {};
        for (int64_t first = 0; first < p.width; first += stretch) {
            const int64_t last = first + stretch < p.width ? first + stretch : p.width;
            for (int64_t row = t.first_row; row < t.last_row; ++row) {
                const Rows3 here(p, t, row);
                const int64_t at = (t.image * p.height + row) * p.width * p.channels + t.first_channel;
                for_vectors(t.channels, [&](int64_t c, int64_t count) {
                    auto run = count == lanes ? slopes_stretch<true> : slopes_stretch<false>;
                    Rows3 rows = here;
                    rows.shift(c);
                    run(rows, t.weight + c, first, last, p.width, p.channels, count, grad.y + at + c,
                        grad.before + at + c, sums + c);
                });
            }
        }
        for (int64_t i = 0; i < 10; ++i)
            for (int64_t c = 0; c < t.channels; ++c)
                grad.partial[(t.part * 10 + i) * p.channels + t.first_channel + c] = sums[i * channels_of_item + c];
    }

    static int64_t items(const Convolution<T>& p) { return p.batch * parts_of_rows(p.height) * blocks(p.channels); }

    static void convolve(const Convolution<T>& p, T* y) {
        parallel_for(p.threads, items(p), [&](int64_t item, int64_t) { convolve_item<true>(p, item, y); });
    }

    static void convolve_backward(const Convolution<T>& p, const ConvolutionGradients<T>& grad) {
        parallel_for(p.threads, items(p), [&](int64_t item, int64_t) { slopes_item(p, item, grad); });
        Convolution<T> adjoint = p;  // of the gradient before SiLU, with the weights turned around
        adjoint.x = grad.before;
        adjoint.pixel_stride = p.channels;
        adjoint.row_stride = p.width * p.channels;
        adjoint.image_stride = p.height * adjoint.row_stride;
        adjoint.bias = nullptr;
        parallel_for(p.threads, items(p), [&](int64_t item, int64_t) { convolve_item<false>(adjoint, item, grad.x); });
        T* sums = grad.partial;
        add_up(sums, p.batch * parts_of_rows(p.height), 10 * p.channels);
        for (int64_t c = 0; c < p.channels; ++c) {
            for (int64_t i = 0; i < 9; ++i) grad.weight[c * 9 + i] = sums[i * p.channels + c];
            grad.bias[c] = sums[9 * p.channels + c];
        }
    }

    // partial[0] += partial[1] + ..., in this order.
    static void add_up(T* partial, int64_t parts, int64_t size) {
        for (int64_t part = 1; part < parts; ++part)
            for (int64_t i = 0; i < size; ++i) partial[i] += partial[part * size + i];
    }

    // -------------------------------------------------------------------------------------------------------- gate

    static constexpr int64_t group = 8;  // pixels at a time: their sums are chains that do not wait for each other

    // Mean and 1 / standard deviation of each pixel's channels, the mean first: no cancellation.
    static void statistics(const Gate<T>& p, int64_t first, int64_t count, T* mean, T* scale) {
        for (int64_t i = 0; i < count; ++i) {
            const T* y = p.y + (first + i) * p.channels;
            V sum{};
            for_vectors(p.channels, [&](int64_t c, int64_t some) __attribute__((always_inline)) {
                sum += get(y + c, some);
            });
            mean[i] = sum_of_lanes<T>(sum) / T(p.channels);
        }
        for (int64_t i = 0; i < count; ++i) {
            const T* y = p.y + (first + i) * p.channels;
            V square{};
            T rest = 0;
            int64_t c = 0;
            for (; c + lanes <= p.channels; c += lanes) {
                const V d = load<V>(y + c) - mean[i];
                square += d * d;
            }
            for (; c < p.channels; ++c) rest += (y[c] - mean[i]) * (y[c] - mean[i]);
            scale[i] = sum_of_lanes<T>(square) + rest;
        }
        for (int64_t i = 0; i < count; ++i) scale[i] = 1 / root(scale[i] / T(p.channels) + p.epsilon);
    }

    // run(pixel, mean, 1 / standard deviation) for the pixels of an item.
    template <class Run> SERPENT_INLINE void for_item(const Gate<T>& p, int64_t item, Run run) {
        const int64_t many = (item + 1) * pixels_of_item(p.pixels), last = many < p.pixels ? many : p.pixels;
        for (int64_t first = item * pixels_of_item(p.pixels); first < last; first += group) {
            const int64_t count = last - first < group ? last - first : group;
            T mean[group], scale[group];
            statistics(p, first, count, mean, scale);
            for (int64_t i = 0; i < count; ++i) run(first + i, mean[i], scale[i]);
        }
    }

    template <bool Gated> static void gate_item(const Gate<T>& p, int64_t item, T* out) {
        for_item(p, item, [&](int64_t pixel, T mean, T scale) __attribute__((always_inline)) {
            const T *y = p.y + pixel * p.channels, *z = p.z + pixel * p.z_stride;
            T* to = out + pixel * p.channels;
            for_vectors(p.channels, [&](int64_t c, int64_t count) __attribute__((always_inline)) {
                V value = (get(y + c, count) - mean) * scale * get(p.weight + c, count) + get(p.bias + c, count);
                if (Gated) {
                    const V gate = get(z + c, count);
                    value *= gate * logistic(gate);
                }
                put(to + c, value, count);
            });
        });
    }

    static void gate_backward_item(const Gate<T>& p, int64_t item, const GateGradients<T>& grad, T* scaled) {
        T *grad_weight = grad.partial + item * 2 * p.channels, *grad_bias = grad_weight + p.channels;
        for (int64_t c = 0; c < 2 * p.channels; ++c) grad_weight[c] = 0;
        for_item(p, item, [&](int64_t pixel, T mean, T scale) __attribute__((always_inline)) {
            const int64_t at = pixel * p.channels;
            const T *y = p.y + at, *z = p.z + pixel * p.z_stride, *out = grad.out + at;
            V sum{}, product{};  // of the gradient of (y - mean) * scale, and of its product with that
            for_vectors(p.channels, [&](int64_t c, int64_t count) __attribute__((always_inline)) {
                const V gate = get(z + c, count), g = get(out + c, count);
                const V weight = get(p.weight + c, count), s = logistic(gate);
                const V normal = (get(y + c, count) - mean) * scale;
                put(grad.z + at + c,
                           g * (normal * weight + get(p.bias + c, count)) * s * (T(1) + gate * (T(1) - s)), count);
                const V through = g * gate * s;
                put(grad_weight + c, get(grad_weight + c, count) + through * normal, count);
                put(grad_bias + c, get(grad_bias + c, count) + through, count);
                put(scaled + c, through * weight, count);
                sum += through * weight;  // missing lanes are zero: their weight is
                product += through * weight * normal;
            });
            const T mean_sum = sum_of_lanes<T>(sum) / T(p.channels);
            const T mean_product = sum_of_lanes<T>(product) / T(p.channels);
            for_vectors(p.channels, [&](int64_t c, int64_t count) __attribute__((always_inline)) {
                const V normal = (get(y + c, count) - mean) * scale;
                put(grad.y + at + c, (get(scaled + c, count) - mean_sum - normal * mean_product) * scale, count);
            });
        });
    }

    static void gate(const Gate<T>& p, T* out) {
        parallel_for(p.threads, parts_of_pixels(p.pixels), [&](int64_t item, int64_t) {
            if (p.z) gate_item<true>(p, item, out);
            else gate_item<false>(p, item, out);
        });
    }

    static void gate_backward(const Gate<T>& p, const GateGradients<T>& grad) {
        const int64_t parts = parts_of_pixels(p.pixels);
        parallel_for(p.threads, parts, [&](int64_t item, int64_t thread) {
            gate_backward_item(p, item, grad, grad.scratch + thread * p.channels);
        });
        add_up(grad.partial, parts, 2 * p.channels);
        for (int64_t c = 0; c < p.channels; ++c) {
            grad.weight[c] = grad.partial[c];
            grad.bias[c] = grad.partial[p.channels + c];
        }
    }

    static constexpr BlockKernels<T> kernels() { return {convolve, convolve_backward, gate, gate_backward}; }
};

}  // namespace
}  // namespace SERPENT_ISA
}  // namespace serpent
