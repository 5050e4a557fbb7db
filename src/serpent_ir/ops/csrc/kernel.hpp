// The selective scan over channels-last maps, forwards and backwards, for one instruction set. The recurrence, its
// adjoint and the layout of the work are derived in ops/README.md.
//
// A vector holds neighbouring channels of one pixel. Work is cut into items (image, group, slot of channel vectors);
// an item walks all directions one after the other, straight over the map by index arithmetic, in chunks of `interval`
// steps, and adds each direction's result to the output in place. Results do not depend on the number of threads.
#pragma once
#include "problem.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __SSE__
#include <immintrin.h>
#endif

namespace serpent {
namespace SERPENT_ISA {
namespace {

#include "simd.hpp"

// Hands out aligned pieces of one thread's scratch memory; with base == null it only counts.
struct Carver {
    char* base;
    int64_t used;
    template <class T> T* take(int64_t count) {
        char* piece = base + used;
        used += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
        return reinterpret_cast<T*>(piece);
    }
};

// Pixels visited by steps first .. first + count - 1 of a scan order (0 rows, 1 columns, 2 and 3 their reverses).
SERPENT_INLINE void fill_pixels(int64_t order, int64_t height, int64_t width, int64_t first, int64_t count, int64_t* to) {
    const int64_t length = height * width;
    const bool by_columns = order & 1, reversed = order & 2;
    const int64_t direction = reversed ? -1 : 1;
    int64_t step = reversed ? length - 1 - first : first;
    for (int64_t i = 0; i < count; ++i, step += direction) to[i] = by_columns ? (step % height) * width + step / height : step;
}

// The order that direction k reads in; two directions are the rows forwards and backwards.
SERPENT_INLINE int64_t order_of(int64_t k, int64_t directions) { return directions == 2 ? 2 * k : k; }

template <class T>
struct Work {  // what one item covers
    int64_t image, group, slot, first_channel, channels, vectors;
};

template <class T>
struct Scan {
    typedef typename VectorOf<T>::type V;
    static constexpr int64_t lanes = sizeof(V) / sizeof(T);

    static int64_t vectors_of_group(const Problem<T>& p) { return (p.channels / p.groups + lanes - 1) / lanes; }
    static int64_t vectors_of_slot(const Problem<T>& p) { return (vectors_of_group(p) + p.slots - 1) / p.slots; }

    static Work<T> work(const Problem<T>& p, int64_t item) {
        Work<T> w;
        w.slot = item % p.slots;
        w.group = item / p.slots % p.groups;
        w.image = item / p.slots / p.groups;
        const int64_t per_group = p.channels / p.groups, per_slot = vectors_of_slot(p) * lanes;
        const int64_t begin = w.slot * per_slot < per_group ? w.slot * per_slot : per_group;
        const int64_t end = begin + per_slot < per_group ? begin + per_slot : per_group;
        w.first_channel = w.group * per_group + begin;
        w.channels = end - begin;
        w.vectors = (w.channels + lanes - 1) / lanes;
        return w;
    }

    // Parameters of one channel vector and one direction, padded with zeros to whole vectors.
    struct Parameters {
        T *decay, *a, *dt_weight, *dt_bias, *skip, *weight;
        void carve(Carver& s, const Problem<T>& p) {
            decay = s.take<T>(p.states * lanes);
            a = s.take<T>(p.states * lanes);
            dt_weight = s.take<T>(p.rank * lanes);
            dt_bias = s.take<T>(lanes);
            skip = s.take<T>(lanes);
            weight = s.take<T>(p.weight ? p.states * lanes : 0);
        }
        void read(const Problem<T>& p, int64_t k, int64_t channel, int64_t count) {
            for (int64_t n = 0; n < p.states; ++n) {
                const int64_t at = (k * p.states + n) * p.channels + channel;
                const V value = load_some<V>(p.a + at, count);
                store(a + n * lanes, value);
                store(decay + n * lanes, value * T(1.44269504088896341));  // log2(e): the kernels raise 2, not e
                if (p.weight) store(weight + n * lanes, load_some<V>(p.weight + at, count));
            }
            for (int64_t r = 0; r < p.rank; ++r)
                store(dt_weight + r * lanes, load_some<V>(p.dt_weight + (k * p.rank + r) * p.channels + channel, count));
            store(dt_bias, p.dt_bias ? load_some<V>(p.dt_bias + k * p.channels + channel, count) : V{});
            store(skip, p.skip ? load_some<V>(p.skip + k * p.channels + channel, count) : V{});
        }
    };

    SERPENT_INLINE const T* row(const Rows<T>& rows, int64_t pixel, int64_t stream) {
        return rows.data + pixel * rows.pixel_stride + stream * rows.stream_stride;
    }

    // dt of one pixel's channel vector; `stream` is the direction for maps.
    SERPENT_INLINE V step_size(const Problem<T>& p, const Parameters& q, int64_t pixel, int64_t k, int64_t channel,
                               int64_t count, V* slope) {
        V raw = load<V>(q.dt_bias);
        if (p.rank) {
            const T* low = row(p.dt, pixel, k);
            for (int64_t r = 0; r < p.rank; ++r) raw += load<V>(q.dt_weight + r * lanes) * low[r];
        } else {
            raw += load_some<V>(p.dt.data + pixel * p.dt.pixel_stride + channel, count);
        }
        if (p.softplus) return softplus(raw, slope);
        if (slope) *slope = splat<V>(T(1));
        return raw;
    }

    // ---------------------------------------------------------------------------------------------------- forwards

    // Memory is asked for this many steps ahead. A step down a column takes its lines from other pages than the step
    // before, which no processor foresees. Few steps, since lines a power of two apart share a few places in the cache.
    static constexpr int64_t ahead = 4;

    SERPENT_INLINE void fetch(const T* from, int64_t count) {
        for (int64_t i = 0; i < count; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(from + i);
    }

    struct ForwardScratch {
        int64_t* pixels;  // of a chunk and of the steps after it that are fetched
        Parameters* parameters;
        T* dt;  // (steps, lanes)
        T* h;   // (vectors, N, lanes)
        ForwardScratch(Carver& s, const Problem<T>& p) {
            const int64_t vectors = vectors_of_slot(p);
            pixels = s.take<int64_t>(p.interval + ahead);
            dt = s.take<T>(p.interval * lanes);
            h = s.take<T>(vectors * p.states * lanes);
            parameters = s.take<Parameters>(vectors);
            for (int64_t v = 0; v < vectors; ++v) {
                Parameters q;
                q.carve(s, p);
                if (s.base) parameters[v] = q;
            }
        }
    };

    template <bool Weighted>
    static void forward_chunk(const Problem<T>& p, const Parameters& q, T* __restrict__ h, T* __restrict__ step_sizes,
                              const int64_t* pixels, int64_t steps, int64_t known, const Work<T>& w, int64_t k,
                              int64_t channel, int64_t count, T* y) {
        const int64_t states = p.states, stream = p.groups > 1 ? w.group : k, base = w.image * p.height * p.width;
        // A pass of its own: steps do not wait for each other here, and the recurrence does not wait for softplus.
        for (int64_t t = 0; t < steps; ++t) {
            if (t + ahead < known && p.rank) fetch(row(p.dt, base + pixels[t + ahead], k), p.rank);
            store(step_sizes + t * lanes, step_size(p, q, base + pixels[t], k, channel, count, nullptr));
        }
        for (int64_t t = 0; t < steps; ++t) {
            const int64_t pixel = base + pixels[t], at = pixel * p.channels + channel;
            if (t + ahead < known) {
                const int64_t later = base + pixels[t + ahead];
                fetch(row(p.b, later, stream), states);
                fetch(row(p.c, later, stream), states);
                fetch(p.x + later * p.channels + channel, lanes);
                if (k) fetch(y + later * p.channels + channel, lanes);
            }
            const V dt = load<V>(step_sizes + t * lanes), x = load_some<V>(p.x + at, count);
            const V drive = dt * x;
            const T *b = row(p.b, pixel, stream), *c = row(p.c, pixel, stream);
            V sum = load<V>(q.skip) * x;
            for (int64_t n = 0; n < states; ++n) {
                V state = load<V>(h + n * lanes);
                state = exp2_of(dt * load<V>(q.decay + n * lanes)) * state + drive * b[n];
                store(h + n * lanes, state);
                sum += Weighted ? state * load<V>(q.weight + n * lanes) * c[n] : state * c[n];
            }
            if (k) sum += load_some<V>(y + at, count);
            store_some(y + at, sum, count);
        }
    }

    static void copy_states(const Problem<T>& p, const T* h, T* to, int64_t channel, int64_t count) {
        for (int64_t n = 0; n < p.states; ++n) store_some(to + n * p.channels + channel, load<V>(h + n * lanes), count);
    }

    static void forward_item(const Problem<T>& p, const Outputs<T>& out, const Work<T>& w, char* memory) {
        Carver carver{memory, 0};
        ForwardScratch s(carver, p);
        const int64_t length = p.height * p.width, chunks = (length + p.interval - 1) / p.interval;
        const int64_t state_size = p.states * p.channels, block = p.states * lanes;
        for (int64_t k = 0; k < p.directions; ++k) {
            for (int64_t v = 0; v < w.vectors; ++v) {
                const int64_t left = w.channels - v * lanes;
                s.parameters[v].read(p, k, w.first_channel + v * lanes, left < lanes ? left : lanes);
            }
            for (int64_t i = 0; i < w.vectors * block; ++i) s.h[i] = 0;
            for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                const int64_t first = chunk * p.interval;
                const int64_t steps = length - first < p.interval ? length - first : p.interval;
                const int64_t known = length - first < steps + ahead ? length - first : steps + ahead;
                fill_pixels(order_of(k, p.directions), p.height, p.width, first, known, s.pixels);
                for (int64_t v = 0; v < w.vectors; ++v) {
                    const int64_t channel = w.first_channel + v * lanes, left = w.channels - v * lanes;
                    const int64_t count = left < lanes ? left : lanes;
                    T* h = s.h + v * block;
                    auto run = p.weight ? forward_chunk<true> : forward_chunk<false>;
                    run(p, s.parameters[v], h, s.dt, s.pixels, steps, known, w, k, channel, count, out.y);
                    const int64_t direction = w.image * p.directions + k;
                    if (out.kept && chunk + 1 < chunks)
                        copy_states(p, h, out.kept + (direction * (chunks - 1) + chunk) * state_size, channel, count);
                    if (out.last && chunk + 1 == chunks)
                        copy_states(p, h, out.last + direction * state_size, channel, count);
                }
            }
        }
    }

    // --------------------------------------------------------------------------------------------------- backwards

    struct BackwardScratch {
        int64_t* pixels;
        Parameters parameters;
        T *h, *decay, *dt, *slope;   // of one chunk and one channel vector: h (steps + 1, N, lanes), decay (steps, N, lanes)
        T *rows;                     // (steps, R + 2N, lanes): gradients of dt_low, B, C before their sum over channels
        T *carry;                    // (vectors, N, lanes): gradient of the state that flows to earlier steps
        T *a, *dt_weight, *dt_bias, *skip, *weight;  // (vectors, ...): gradients of the parameters
        BackwardScratch(Carver& s, const Problem<T>& p) {
            const int64_t vectors = vectors_of_slot(p), block = p.states * lanes;
            pixels = s.take<int64_t>(p.interval);
            parameters.carve(s, p);
            h = s.take<T>((p.interval + 1) * block);
            decay = s.take<T>(p.interval * block);
            dt = s.take<T>(p.interval * lanes);
            slope = s.take<T>(p.interval * lanes);
            rows = s.take<T>(p.interval * (p.rank + 2 * p.states) * lanes);
            carry = s.take<T>(vectors * block);
            a = s.take<T>(vectors * block);
            weight = s.take<T>(p.weight ? vectors * block : 0);
            dt_weight = s.take<T>(vectors * p.rank * lanes);
            dt_bias = s.take<T>(vectors * lanes);
            skip = s.take<T>(vectors * lanes);
        }
    };

    // States, decays and step sizes of one chunk, from the state before it.
    static void recompute_chunk(const Problem<T>& p, BackwardScratch& s, const T* initial, int64_t steps,
                                const Work<T>& w, int64_t k, int64_t channel, int64_t count) {
        const int64_t states = p.states, stream = p.groups > 1 ? w.group : k, base = w.image * p.height * p.width;
        for (int64_t n = 0; n < states; ++n)
            store(s.h + n * lanes, initial ? load_some<V>(initial + n * p.channels + channel, count) : V{});
        for (int64_t t = 0; t < steps; ++t) {
            V slope;
            store(s.dt + t * lanes, step_size(p, s.parameters, base + s.pixels[t], k, channel, count, &slope));
            store(s.slope + t * lanes, slope);
        }
        for (int64_t t = 0; t < steps; ++t) {
            const int64_t pixel = base + s.pixels[t];
            const V dt = load<V>(s.dt + t * lanes);
            const V drive = dt * load_some<V>(p.x + pixel * p.channels + channel, count);
            const T* b = row(p.b, pixel, stream);
            const T* __restrict__ before = s.h + t * states * lanes;
            T* __restrict__ after = s.h + (t + 1) * states * lanes;
            T* __restrict__ decays = s.decay + t * states * lanes;
            for (int64_t n = 0; n < states; ++n) {
                const V decay = exp2_of(dt * load<V>(s.parameters.decay + n * lanes));
                store(decays + n * lanes, decay);
                store(after + n * lanes, decay * load<V>(before + n * lanes) + drive * b[n]);
            }
        }
    }

    template <bool Weighted>
    static void backward_chunk(const Problem<T>& p, const Gradients<T>& grad, BackwardScratch& s, int64_t steps,
                               const Work<T>& w, int64_t k, int64_t v, int64_t channel, int64_t count) {
        const int64_t states = p.states, block = states * lanes, stream = p.groups > 1 ? w.group : k;
        const int64_t base = w.image * p.height * p.width, width = p.rank + 2 * states;
        const Parameters& q = s.parameters;
        T* __restrict__ carry = s.carry + v * block;
        T* __restrict__ grad_a = s.a + v * block;
        T* __restrict__ grad_weight = s.weight + v * block;
        V grad_bias = load<V>(s.dt_bias + v * lanes), grad_skip = load<V>(s.skip + v * lanes);
        for (int64_t t = steps - 1; t >= 0; --t) {
            const int64_t pixel = base + s.pixels[t], at = pixel * p.channels + channel;
            const V x = load_some<V>(p.x + at, count), gy = load_some<V>(grad.y + at, count);
            const V dt = load<V>(s.dt + t * lanes), drive = dt * x;
            const T *b = row(p.b, pixel, stream), *c = row(p.c, pixel, stream);
            T* __restrict__ rows = s.rows + t * width * lanes;
            T* __restrict__ grad_b = rows + p.rank * lanes;
            T* __restrict__ grad_c = grad_b + block;
            const T* __restrict__ before = s.h + t * block;
            const T* __restrict__ after = before + block;
            const T* __restrict__ decays = s.decay + t * block;
            V through_b{}, through_decay{};
            for (int64_t n = 0; n < states; ++n) {
                const int64_t i = n * lanes;
                const V h = load<V>(after + i);
                const V gc = Weighted ? gy * load<V>(q.weight + i) : gy;
                const V g = load<V>(carry + i) + gc * c[n];
                const V past = g * load<V>(decays + i), product = past * load<V>(before + i);
                const V gb = g * drive;
                if (Weighted) store(grad_weight + i, load<V>(grad_weight + i) + gy * h * c[n]);
                store(carry + i, past);
                store(grad_a + i, load<V>(grad_a + i) + product * dt);
                store(grad_b + i, v ? load<V>(grad_b + i) + gb : gb);
                store(grad_c + i, v ? load<V>(grad_c + i) + gc * h : gc * h);
                through_b += g * b[n];
                through_decay += product * load<V>(q.a + i);
            }
            const V graw = (x * through_b + through_decay) * load<V>(s.slope + t * lanes);
            V gx = load<V>(q.skip) * gy + dt * through_b;
            if (k) gx += load_some<V>(grad.x + at, count);
            store_some(grad.x + at, gx, count);
            grad_skip += gy * x;
            grad_bias += graw;
            if (p.rank) {
                const T* low = row(p.dt, pixel, k);
                T* __restrict__ grad_w = s.dt_weight + v * p.rank * lanes;
                for (int64_t r = 0; r < p.rank; ++r) {
                    const int64_t i = r * lanes;
                    const V gl = graw * load<V>(q.dt_weight + i);
                    store(rows + i, v ? load<V>(rows + i) + gl : gl);
                    store(grad_w + i, load<V>(grad_w + i) + graw * low[r]);
                }
            } else {
                store_some(grad.delta + at, graw, count);
            }
        }
        store(s.dt_bias + v * lanes, grad_bias);
        store(s.skip + v * lanes, grad_skip);
    }

    // A direction's parameter gradients of one channel vector, from scratch to the image's slice of the output.
    static void write_parameters(const Problem<T>& p, const Gradients<T>& grad, const BackwardScratch& s, int64_t direction,
                                 int64_t v, int64_t channel, int64_t count) {
        const int64_t block = p.states * lanes;
        copy_states(p, s.a + v * block, grad.a + direction * p.states * p.channels, channel, count);
        if (grad.weight)
            copy_states(p, s.weight + v * block, grad.weight + direction * p.states * p.channels, channel, count);
        for (int64_t r = 0; r < p.rank; ++r)
            store_some(grad.dt_weight + (direction * p.rank + r) * p.channels + channel,
                       load<V>(s.dt_weight + (v * p.rank + r) * lanes), count);
        store_some(grad.dt_bias + direction * p.channels + channel, load<V>(s.dt_bias + v * lanes), count);
        store_some(grad.skip + direction * p.channels + channel, load<V>(s.skip + v * lanes), count);
    }

    static void backward_item(const Problem<T>& p, const Gradients<T>& grad, const Work<T>& w, char* memory) {
        Carver carver{memory, 0};
        BackwardScratch s(carver, p);
        const int64_t length = p.height * p.width, chunks = (length + p.interval - 1) / p.interval;
        const int64_t block = p.states * lanes, width = p.rank + 2 * p.states, streams = p.directions * p.groups;
        const int64_t state_size = p.states * p.channels;
        for (int64_t k = 0; k < p.directions; ++k) {
            const int64_t direction = w.image * p.directions + k, stream = p.groups > 1 ? w.group : k;
            for (int64_t i = 0; i < w.vectors * block; ++i) s.carry[i] = s.a[i] = 0;
            for (int64_t i = 0; p.weight && i < w.vectors * block; ++i) s.weight[i] = 0;
            for (int64_t i = 0; i < w.vectors * p.rank * lanes; ++i) s.dt_weight[i] = 0;
            for (int64_t i = 0; i < w.vectors * lanes; ++i) s.dt_bias[i] = s.skip[i] = 0;
            for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
                const int64_t first = chunk * p.interval;
                const int64_t steps = length - first < p.interval ? length - first : p.interval;
                fill_pixels(order_of(k, p.directions), p.height, p.width, first, steps, s.pixels);
                const T* initial = chunk ? grad.kept + (direction * (chunks - 1) + chunk - 1) * state_size : nullptr;
                for (int64_t v = 0; v < w.vectors; ++v) {
                    const int64_t channel = w.first_channel + v * lanes, left = w.channels - v * lanes;
                    const int64_t count = left < lanes ? left : lanes;
                    s.parameters.read(p, k, channel, count);
                    recompute_chunk(p, s, initial, steps, w, k, channel, count);
                    auto run = p.weight ? backward_chunk<true> : backward_chunk<false>;
                    run(p, grad, s, steps, w, k, v, channel, count);
                    if (chunk == 0) write_parameters(p, grad, s, direction, v, channel, count);
                }
                for (int64_t t = 0; t < steps; ++t) {
                    const int64_t pixel = w.image * length + s.pixels[t];
                    T* to = grad.rows + ((w.slot * p.batch * length + pixel) * streams + stream) * width;
                    const T* from = s.rows + t * width * lanes;
                    for (int64_t i = 0; i < width; ++i) to[i] = w.vectors ? sum_of_lanes<T>(load<V>(from + i * lanes)) : T(0);
                }
            }
        }
    }

    // -------------------------------------------------------------------------------------------------- launchers

    static int64_t scratch_bytes(const Problem<T>& p, bool backward) {
        Carver counter{nullptr, 0};
        if (backward) BackwardScratch(counter, p);
        else ForwardScratch(counter, p);
        return counter.used;
    }

    template <class Run> static void run_items(const Problem<T>& p, Run run) {
        const int64_t items = p.batch * p.groups * p.slots;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(int(p.threads < items ? p.threads : items))
        for (int64_t item = 0; item < items; ++item)
            run(work(p, item), p.scratch + omp_get_thread_num() * p.scratch_bytes);
#else
        for (int64_t item = 0; item < items; ++item) run(work(p, item), p.scratch);
#endif
    }

    static void forward(const Problem<T>& p, const Outputs<T>& out) {
        run_items(p, [&](const Work<T>& w, char* memory) { forward_item(p, out, w, memory); });
    }
    static void backward(const Problem<T>& p, const Gradients<T>& grad) {
        run_items(p, [&](const Work<T>& w, char* memory) { backward_item(p, grad, w, memory); });
    }

    static constexpr Kernels<T> kernels() { return {scratch_bytes, forward, backward}; }
};

}  // namespace
}  // namespace SERPENT_ISA
}  // namespace serpent
