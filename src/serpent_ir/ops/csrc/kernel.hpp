// The selective scan over channels-last maps, forwards and backwards, for one instruction set. The recurrence, its
// adjoint and the layout of the work are derived in ops/README.md.
//
// A vector holds neighbouring channels of one pixel. Work is cut into items (image, group, slot of channel vectors), where
// threads are many also by direction. An item walks its directions straight over the map by index arithmetic, in chunks of
// steps; what a chunk needs of the map is fetched into scratch, then a few states at a time are carried over all its steps
// in registers. Results do not depend on the number of threads.
#pragma once
#include "parallel.hpp"
#include "problem.hpp"

#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace serpent {
namespace SERPENT_ISA {
namespace {

#include "simd.hpp"

// Hands out aligned pieces of scratch memory; with base == null it only counts.
struct Carver {
    char* base;
    int64_t used;
    template <class T> T* take(int64_t count) {
        char* piece = base + used;
        used += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
        return reinterpret_cast<T*>(piece);
    }
};

template <class T>
struct Scan {
    typedef typename VectorOf<T>::type V;
    static constexpr int64_t lanes = sizeof(V) / sizeof(T);
    static constexpr int64_t unit = 16 / lanes;  // vectors of 16 channels, a line of float32; slots hold whole units

    struct Item {
        int64_t index, image, group, slot, first_direction, end_direction, first_channel, channels, vectors;
        int64_t channel(int64_t v) const { return first_channel + v * lanes; }
        int64_t count(int64_t v) const { return channels - v * lanes < lanes ? channels - v * lanes : lanes; }
    };

    static int64_t parts(const Problem<T>& p) { return p.partial ? p.directions : 1; }
    static int64_t items(const Problem<T>& p) { return p.batch * p.groups * parts(p) * p.slots; }

    static int64_t vectors_of_slot(const Problem<T>& p) {
        const int64_t units = (p.channels / p.groups + unit * lanes - 1) / (unit * lanes);
        return (units + p.slots - 1) / p.slots * unit;
    }

    static Item item(const Problem<T>& p, int64_t index) {
        Item w;
        w.index = index;
        w.slot = index % p.slots;
        const int64_t part = index / p.slots % parts(p);
        w.group = index / p.slots / parts(p) % p.groups;
        w.image = index / p.slots / parts(p) / p.groups;
        w.first_direction = part;
        w.end_direction = p.partial ? part + 1 : p.directions;
        const int64_t per_group = p.channels / p.groups, per_slot = vectors_of_slot(p) * lanes;
        const int64_t begin = w.slot * per_slot < per_group ? w.slot * per_slot : per_group;
        const int64_t end = begin + per_slot < per_group ? begin + per_slot : per_group;
        w.first_channel = w.group * per_group + begin;
        w.channels = end - begin;
        w.vectors = (w.channels + lanes - 1) / lanes;
        return w;
    }

    // Two directions are the rows forwards and backwards, four have the columns in between (scan_order.py).
    static int64_t order_of(const Problem<T>& p, int64_t k) { return p.directions == 2 ? 2 * k : k; }

    static int64_t pairs(const Problem<T>& p) { return (p.states + 1) / 2; }
    static int64_t block(const Problem<T>& p) { return p.states * lanes; }  // numbers of one vector's states

    // Where direction k's result for one pixel goes, and whether there is something to add it to.
    static T* result(const Problem<T>& p, T* first, int64_t k) {
        return p.partial && k ? p.partial + (k - 1) * p.batch * p.height * p.width * p.channels : first;
    }
    static bool adds(const Problem<T>& p, int64_t k) { return k && !p.partial; }

    // Parameters of one channel vector and one direction, padded with zeros to whole vectors.
    struct Parameters {
        T *decay, *a, *dt_weight, *dt_bias, *skip, *weight;
        T steepest;  // the largest |decay|
        void carve(Carver& s, const Problem<T>& p) {
            decay = s.take<T>(block(p));
            a = s.take<T>(block(p));
            dt_weight = s.take<T>(p.rank * lanes);
            dt_bias = s.take<T>(lanes);
            skip = s.take<T>(lanes);
            weight = s.take<T>(p.weight ? block(p) : 0);
        }
        // (channels, length) of the problem to (length, lanes).
        static void turn(const T* from, int64_t length, int64_t count, T* to) {
            for (int64_t i = 0; i < length * lanes; ++i) to[i] = 0;
            for (int64_t lane = 0; lane < count; ++lane)
                for (int64_t i = 0; i < length; ++i) to[i * lanes + lane] = from[lane * length + i];
        }
        void read(const Problem<T>& p, int64_t k, int64_t channel, int64_t count) {
            const int64_t at = k * p.channels + channel;
            turn(p.a + at * p.states, p.states, count, a);
            steepest = 0;
            for (int64_t i = 0; i < block(p); ++i) {
                decay[i] = a[i] * T(1.44269504088896341);  // log2(e): the kernels raise 2, not e
                steepest = steepest < -decay[i] ? -decay[i] : steepest;
            }
            if (p.weight) turn(p.weight + at * p.states, p.states, count, weight);
            if (p.rank) turn(p.dt_weight + at * p.rank, p.rank, count, dt_weight);
            store(dt_bias, p.dt_bias ? load_some<V>(p.dt_bias + at, count) : V{});
            store(skip, p.skip ? load_some<V>(p.skip + at, count) : V{});
        }
    };

    static Parameters* carve_parameters(Carver& s, const Problem<T>& p) {  // one for each vector of a slot
        const int64_t vectors = vectors_of_slot(p);
        Parameters* parameters = s.take<Parameters>(vectors);
        for (int64_t v = 0; v < vectors; ++v) {
            Parameters q;
            q.carve(s, p);
            if (s.base) parameters[v] = q;
        }
        return parameters;
    }

    // ------------------------------------------------------------------------------------------ one chunk of a path

    // Memory is asked for this many steps ahead. A step down a column takes its lines from other pages than the step
    // before, which no processor foresees. Few steps, since lines a power of two apart share a few places in the cache;
    // for the same reason a chunk is copied once, all channels of the item together, and read from the copy.
    static constexpr int64_t ahead = 8;
    static constexpr int64_t side_by_side = 4;  // steps whose sizes are computed together; divides every chunk

    SERPENT_INLINE void fetch(const T* from, int64_t count) {
        for (int64_t i = 0; i < count; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(from + i);
    }

    // One pair of states has its rows of B and C for all steps side by side, so that a pass over the steps reads (and the
    // backward pass writes) straight on; a little more than needed, so that pairs do not share places in the cache.
    static int64_t pair_stride(const Problem<T>& p) { return 4 * p.chunk + 16; }

    struct Chunk {
        int64_t steps, *pixels;
        T* low;  // (steps, R): dt_low
        T* bc;   // (pairs, pair_stride): B and B, C and C of each step
        T* x;    // (vectors, steps of a whole chunk, lanes)
        T* dt;   // the same, only when rank == 0: the raw step sizes
        void carve(Carver& s, const Problem<T>& p) {
            const int64_t whole = vectors_of_slot(p) * p.chunk * lanes;
            pixels = s.take<int64_t>(p.chunk);
            low = s.take<T>((p.chunk + 1) * p.rank + 4);
            bc = s.take<T>(pairs(p) * pair_stride(p));
            x = s.take<T>(whole);
            dt = s.take<T>(p.rank ? 0 : whole);
        }

        // The pixels of the chunk of direction k that begins at step `first`, and ends before step `end`.
        void follow(const Problem<T>& p, const Item& w, int64_t k, int64_t first, int64_t end) {
            const int64_t order = order_of(p, k), length = p.height * p.width;
            steps = end - first < p.chunk ? end - first : p.chunk;
            const int64_t from = order & 2 ? length - first - steps : first;  // the reversed orders are filled backwards
            int64_t pixel = order & 1 ? from % p.height * p.width + from / p.height : from;
            for (int64_t i = 0; i < steps; ++i) {
                pixels[order & 2 ? steps - 1 - i : i] = w.image * length + pixel;
                pixel += order & 1 ? p.width : 1;
                if (order & 1 && pixel >= length) pixel -= length - 1;
            }
        }

        // Calls each(pixel's numbers of the item's first channel, step) for all steps; memory is fetched ahead.
        template <class M, class Each>
        SERPENT_INLINE void for_steps(const Item& w, M* map, int64_t stride, const Chunk& chunk, Each each) {
            M* first = map + w.first_channel;
            for (int64_t t = 0; t < chunk.steps; ++t) {
                fetch(first + chunk.pixels[t + ahead < chunk.steps ? t + ahead : t] * stride, w.channels);
                each(first + chunk.pixels[t] * stride, t);
            }
        }

        // (pixels, D) to (vectors, steps, lanes), the item's channels only.
        void gather(const Problem<T>& p, const Item& w, const T* map, int64_t stride, T* to) const {
            const int64_t part = p.chunk * lanes, whole = w.channels / lanes, rest = w.channels % lanes;
            for_steps(w, map, stride, *this, [&](const T* from, int64_t t) {
                for (int64_t v = 0; v < whole; ++v) store(to + v * part + t * lanes, load<V>(from + v * lanes));
                if (rest) store(to + whole * part + t * lanes, load_some<V>(from + whole * lanes, rest));
            });
        }

        void read(const Problem<T>& p, const Item& w, int64_t k, int64_t first, int64_t end) {
            follow(p, w, k, first, end);
            const int64_t stream = p.groups > 1 ? w.group : k, even = p.states / 2, stride = pair_stride(p);
            const T *from_low = p.dt.data + k * p.dt.stream_stride, *from_b = p.b.data + stream * p.b.stream_stride;
            const T* from_c = p.c.data + stream * p.c.stream_stride;
            for (int64_t t = 0; t < steps; ++t) {
                const int64_t pixel = pixels[t], later = pixels[t + ahead < steps ? t + ahead : t];
                if (p.rank) fetch(from_low + later * p.dt.pixel_stride, p.rank);
                fetch(from_b + later * p.b.pixel_stride, p.states);
                fetch(from_c + later * p.c.pixel_stride, p.states);
                for (int64_t r = 0; r < p.rank; ++r) low[t * p.rank + r] = from_low[pixel * p.dt.pixel_stride + r];
                const T *b = from_b + pixel * p.b.pixel_stride, *c = from_c + pixel * p.c.pixel_stride;
                T* to = bc + 4 * t;
                for (int64_t i = 0; i < even; ++i, b += 2, c += 2, to += stride) {
                    __builtin_memcpy(to, b, 2 * sizeof(T));
                    __builtin_memcpy(to + 2, c, 2 * sizeof(T));
                }
                if (p.states % 2) to[0] = b[0], to[2] = c[0];
            }
            gather(p, w, p.x, p.channels, x);
            if (!p.rank) gather(p, w, p.dt.data, p.dt.pixel_stride, dt);
        }

        // Puts (vectors, steps, lanes) where the map has the item's channels, or adds it there.
        void scatter(const Problem<T>& p, const Item& w, const T* from, bool add, T* map) const {
            const int64_t part = p.chunk * lanes, whole = w.channels / lanes, rest = w.channels % lanes;
            for_steps(w, map, p.channels, *this, [&](T* to, int64_t t) {
                const T* at = from + t * lanes;
                for (int64_t v = 0; v < whole; ++v, at += part)
                    store(to + v * lanes, add ? load<V>(to + v * lanes) + load<V>(at) : load<V>(at));
                if (rest) store_some(to + whole * lanes, load<V>(at) + (add ? load_some<V>(to + whole * lanes, rest) : V{}), rest);
            });
        }
    };

    // Step sizes of a chunk and one channel vector, and the slopes of softplus where wanted, for whole groups of steps: what
    // lies behind the last step is not used. Several steps side by side, since each is a long chain of instructions that wait
    // for each other. Returns whether all exponents of the chunk are so small that exp2_of_bounded does.
    static bool step_sizes(const Problem<T>& p, const Parameters& q, const Chunk& chunk, int64_t v, T* __restrict__ dts,
                           T* __restrict__ slopes) {
        const int64_t steps = chunk.steps, rank = p.rank;
        const V bias = load<V>(q.dt_bias);
        for (int64_t first = 0; first < steps; first += side_by_side) {
            V raw[side_by_side];
            const T* low = chunk.low + first * rank;
            for (int64_t i = 0; i < side_by_side; ++i)
                raw[i] = rank ? bias : bias + load<V>(chunk.dt + (v * p.chunk + first + i) * lanes);
            for (int64_t r = 0; r < rank; ++r) {
                const V weight = load<V>(q.dt_weight + r * lanes);
                for (int64_t i = 0; i < side_by_side; ++i) raw[i] += weight * low[i * rank + r];
            }
            for (int64_t i = 0; i < side_by_side; ++i) store(dts + (first + i) * lanes, raw[i]);
        }
        V largest{};
        if (p.softplus && slopes) {
            for (int64_t t = 0; t < steps; ++t) {
                V slope;
                const V dt = softplus(load<V>(dts + t * lanes), &slope);
                store(dts + t * lanes, dt);
                store(slopes + t * lanes, slope);
                largest = larger(dt, largest);
            }
        } else if (p.softplus) {
            for (int64_t t = 0; t < steps; ++t) {
                const V dt = softplus(load<V>(dts + t * lanes), nullptr);
                store(dts + t * lanes, dt);
                largest = larger(dt, largest);
            }
        } else {
            for (int64_t t = 0; t < steps; ++t) {
                largest = larger(absolute(load<V>(dts + t * lanes)), largest);
                if (slopes) store(slopes + t * lanes, splat<V>(T(1)));
            }
        }
        bool bounded = true;
        for (int64_t lane = 0; lane < lanes; ++lane) bounded &= largest[lane] * q.steepest <= T(126);
        return bounded;
    }

    template <bool Bounded> SERPENT_INLINE V decay_of(V dt, const T* decay) {
        return Bounded ? exp2_of_bounded(dt * load<V>(decay)) : exp2_of(dt * load<V>(decay));
    }

    // ---------------------------------------------------------------------------------------------------- forwards

    struct ForwardScratch {
        Chunk chunk;
        Parameters* parameters;
        T *dt, *drive;  // (steps, lanes)
        T* y;           // (vectors, steps, lanes)
        T* h;           // (vectors, N, lanes)
        T* step_sum;    // (vectors, lanes)
        ForwardScratch(Carver& s, const Problem<T>& p) {
            const int64_t vectors = vectors_of_slot(p);
            chunk.carve(s, p);
            dt = s.take<T>(p.chunk * lanes);
            drive = s.take<T>(p.chunk * lanes);
            y = s.take<T>(vectors * p.chunk * lanes);
            h = s.take<T>(vectors * block(p));
            step_sum = s.take<T>(vectors * lanes);
            parameters = carve_parameters(s, p);
        }
    };

    enum Output { states_only, plain, weighted };

    // What a chunk's states add to y, two states at a time (one at the end when N is odd), from its first step to its last. The
    // states before the chunk are replaced by those after it.
    template <bool Bounded, Output Kind, int64_t Count>
    SERPENT_INLINE void advance_some(const Problem<T>& p, const Parameters& q, const Chunk& chunk, const T* __restrict__ dts,
                                     const T* __restrict__ drives, T* __restrict__ states, T* __restrict__ y, int64_t n) {
        const T *bc = chunk.bc + n / 2 * pair_stride(p), *decay = q.decay + n * lanes, *weight = q.weight + n * lanes;
        V h[Count];
        for (int64_t i = 0; i < Count; ++i) h[i] = load<V>(states + (n + i) * lanes);
        for (int64_t t = 0; t < chunk.steps; ++t, bc += 4) {
            const V dt = load<V>(dts + t * lanes), drive = load<V>(drives + t * lanes);
            V sum = Kind == states_only ? V{} : load<V>(y + t * lanes);
            for (int64_t i = 0; i < Count; ++i) {
                h[i] = decay_of<Bounded>(dt, decay + i * lanes) * h[i] + drive * bc[i];
                if (Kind != states_only) sum += (Kind == weighted ? h[i] * load<V>(weight + i * lanes) : h[i]) * bc[2 + i];
            }
            if (Kind != states_only) store(y + t * lanes, sum);
        }
        for (int64_t i = 0; i < Count; ++i) store(states + (n + i) * lanes, h[i]);
    }

    template <bool Bounded, Output Kind>
    static void advance(const Problem<T>& p, const Parameters& q, const Chunk& chunk, const T* dts, const T* drives, T* states,
                        T* y) {
        int64_t n = 0;
        for (; n + 2 <= p.states; n += 2) advance_some<Bounded, Kind, 2>(p, q, chunk, dts, drives, states, y, n);
        if (n < p.states) advance_some<Bounded, Kind, 1>(p, q, chunk, dts, drives, states, y, n);
    }

    // The chunk that was read: its states, its results (but for `states_only`), and what it adds to the sums of step sizes.
    template <Output Kind> static void advance_chunk(const Problem<T>& p, const ForwardScratch& s, const Item& w) {
        for (int64_t v = 0; v < w.vectors; ++v) {
            const Parameters& q = s.parameters[v];
            T* y = s.y + v * p.chunk * lanes;
            const T* x = s.chunk.x + v * p.chunk * lanes;
            const bool bounded = step_sizes(p, q, s.chunk, v, s.dt, nullptr);
            const V skip = load<V>(q.skip);
            V sum = load<V>(s.step_sum + v * lanes);
            for (int64_t i = 0; i < s.chunk.steps * lanes; i += lanes) {
                store(s.drive + i, load<V>(s.dt + i) * load<V>(x + i));
                if (Kind == states_only) sum += load<V>(s.dt + i);
                else store(y + i, skip * load<V>(x + i));
            }
            store(s.step_sum + v * lanes, sum);
            auto run = bounded ? advance<true, Kind> : advance<false, Kind>;
            run(p, q, s.chunk, s.dt, s.drive, s.h + v * block(p), y);
        }
    }

    // The states of one channel vector, (N, lanes), to (N, D).
    static void keep(const Problem<T>& p, const T* h, T* to, int64_t channel, int64_t count) {
        for (int64_t n = 0; n < p.states; ++n) store_some(to + n * p.channels + channel, load<V>(h + n * lanes), count);
    }

    // (length, lanes) to (channels, length), as parameters have it.
    static void turn_back(const T* from, int64_t length, T* to, int64_t channel, int64_t count) {
        for (int64_t lane = 0; lane < count; ++lane)
            for (int64_t i = 0; i < length; ++i) to[(channel + lane) * length + i] = from[i * lanes + lane];
    }

    static void forward_item(const Problem<T>& p, const Outputs<T>& out, const Item& w, char* memory) {
        if (!w.channels) return;  // the last slots, when units do not divide evenly
        Carver carver{memory, 0};
        ForwardScratch s(carver, p);
        const int64_t length = p.height * p.width, intervals = (length + p.interval - 1) / p.interval;
        for (int64_t k = w.first_direction; k < w.end_direction; ++k) {
            const int64_t direction = w.image * p.directions + k;
            for (int64_t v = 0; v < w.vectors; ++v) s.parameters[v].read(p, k, w.channel(v), w.count(v));
            for (int64_t i = 0; i < w.vectors * block(p); ++i) s.h[i] = 0;
            for (int64_t first = 0; first < length; first += p.chunk) {
                s.chunk.read(p, w, k, first, length);
                if (p.weight) advance_chunk<weighted>(p, s, w);
                else advance_chunk<plain>(p, s, w);
                const int64_t end = first + s.chunk.steps;
                for (int64_t v = 0; v < w.vectors; ++v) {
                    const int64_t channel = w.channel(v), count = w.count(v);
                    const T* h = s.h + v * block(p);
                    if (end == length)
                        turn_back(h, p.states, out.last + direction * p.channels * p.states, channel, count);
                    else if (out.kept && end % p.interval == 0)
                        keep(p, h, out.kept + (direction * (intervals - 1) + end / p.interval - 1) * p.states * p.channels,
                             channel, count);
                }
                s.chunk.scatter(p, w, s.y, adds(p, k), result(p, out.y, k));
            }
        }
    }

    // One item of a band: segment after segment, each from the states that it is given.
    static void band_item(const Problem<T>& p, const Band<T>& band, const Item& w, char* memory) {
        if (!w.channels) return;
        Carver carver{memory, 0};
        ForwardScratch s(carver, p);
        const int64_t length = p.height * p.width, states = p.states * p.channels;
        int64_t segment = 0;
        for (int64_t k = 0; k < p.directions; ++k) {
            const int64_t stretch = order_of(p, k) & 1 ? p.height : length;
            if (!k && !band.y) {
                segment += length / stretch;
                continue;
            }
            for (int64_t v = 0; v < w.vectors; ++v) s.parameters[v].read(p, k, w.channel(v), w.count(v));
            for (int64_t start = 0; start < length; start += stretch, ++segment) {
                for (int64_t v = 0; v < w.vectors; ++v) {
                    store(s.step_sum + v * lanes, V{});
                    for (int64_t n = 0; n < p.states; ++n) {
                        const int64_t at = segment * states + n * p.channels + w.channel(v);
                        store(s.h + v * block(p) + n * lanes, band.before ? load_some<V>(band.before + at, w.count(v)) : V{});
                    }
                }
                for (int64_t first = start; first < start + stretch; first += p.chunk) {
                    s.chunk.read(p, w, k, first, start + stretch);
                    if (band.y) advance_chunk<plain>(p, s, w);
                    else advance_chunk<states_only>(p, s, w);
                    if (band.y) s.chunk.scatter(p, w, s.y, adds(p, k), band.y);
                }
                for (int64_t v = 0; v < w.vectors; ++v) {
                    const int64_t channel = w.channel(v), count = w.count(v);
                    keep(p, s.h + v * block(p), band.after + segment * states, channel, count);
                    if (band.step_sum)
                        store_some(band.step_sum + segment * p.channels + channel, load<V>(s.step_sum + v * lanes), count);
                }
            }
        }
    }

    // --------------------------------------------------------------------------------------------------- backwards

    static int64_t low_width(const Problem<T>& p) { return (p.rank + 3) / 4 * 4; }

    struct BackwardScratch {
        Chunk chunk;
        Parameters* parameters;
        T *gy, *gx;                    // (vectors, steps, lanes)
        T *dt, *slope, *drive;         // (steps, lanes), of one channel vector
        T *through_b, *through_decay;  // (steps, lanes): sum_n g B, and sum_n g a h[t-1] A
        T *h, *decay;                  // (steps, 2, lanes), of one pair of states; h before each step
        T *bc, *low;                   // gradients of B and C, (pairs, pair_stride) of b c b c; of dt_low, (steps, R up to fours)
        T* before;                     // (N, lanes), of one channel vector: the states before the chunk
        T* carry;                      // (vectors, N, lanes): gradient of the state that flows to earlier steps
        T *a, *dt_weight, *dt_bias, *skip, *weight;  // (vectors, ...): gradients of the parameters
        BackwardScratch(Carver& s, const Problem<T>& p) {
            const int64_t vectors = vectors_of_slot(p);
            chunk.carve(s, p);
            gy = s.take<T>(vectors * p.chunk * lanes);
            gx = s.take<T>(vectors * p.chunk * lanes);
            dt = s.take<T>(p.chunk * lanes);
            slope = s.take<T>(p.chunk * lanes);
            drive = s.take<T>(p.chunk * lanes);
            through_b = s.take<T>(p.chunk * lanes);
            through_decay = s.take<T>(p.chunk * lanes);
            h = s.take<T>(p.chunk * 2 * lanes);
            decay = s.take<T>(p.chunk * 2 * lanes);
            bc = s.take<T>(pairs(p) * pair_stride(p));
            low = s.take<T>(p.chunk * low_width(p));
            before = s.take<T>(block(p));
            carry = s.take<T>(vectors * block(p));
            a = s.take<T>(vectors * block(p));
            weight = s.take<T>(p.weight ? vectors * block(p) : 0);
            dt_weight = s.take<T>(vectors * p.rank * lanes);
            dt_bias = s.take<T>(vectors * lanes);
            skip = s.take<T>(vectors * lanes);
            parameters = carve_parameters(s, p);
        }
    };

    // Two states of a chunk (or the last one) and their decays again, from those before it, then the adjoint from its end to
    // its beginning.
    template <bool Bounded, bool Weighted, int64_t Count>
    SERPENT_INLINE void retreat_some(const Problem<T>& p, const BackwardScratch& s, const Parameters& q, int64_t v, int64_t n) {
        const int64_t steps = s.chunk.steps, state = (v * p.states + n) * lanes;
        const T *__restrict__ dts = s.dt, *__restrict__ drives = s.drive, *__restrict__ gys = s.gy + v * p.chunk * lanes;
        const T *decay_rate = q.decay + n * lanes, *a = q.a + n * lanes, *weight = q.weight + n * lanes;
        const T* bc = s.chunk.bc + n / 2 * pair_stride(p);
        T *__restrict__ hs = s.h, *__restrict__ decays = s.decay;
        T *__restrict__ through_b = s.through_b, *__restrict__ through_decay = s.through_decay;
        T* grad_bc = s.bc + n / 2 * pair_stride(p);
        V h[Count], carry[Count], grad_a[Count], grad_weight[Count];
        for (int64_t i = 0; i < Count; ++i) {
            h[i] = load<V>(s.before + (n + i) * lanes);
            carry[i] = load<V>(s.carry + state + i * lanes);
            grad_a[i] = load<V>(s.a + state + i * lanes);
            if (Weighted) grad_weight[i] = load<V>(s.weight + state + i * lanes);
        }
        for (int64_t t = 0; t < steps; ++t) {
            const V dt = load<V>(dts + t * lanes), drive = load<V>(drives + t * lanes);
            for (int64_t i = 0; i < Count; ++i) {
                const V decay = decay_of<Bounded>(dt, decay_rate + i * lanes);
                store(hs + (2 * t + i) * lanes, h[i]);
                store(decays + (2 * t + i) * lanes, decay);
                h[i] = decay * h[i] + drive * bc[4 * t + i];
            }
        }
        for (int64_t t = steps - 1; t >= 0; --t) {
            const V dt = load<V>(dts + t * lanes), drive = load<V>(drives + t * lanes), gy = load<V>(gys + t * lanes);
            V along_b = load<V>(through_b + t * lanes), along_decay = load<V>(through_decay + t * lanes);
            V grad_b[2] = {}, grad_c[2] = {};
            for (int64_t i = 0; i < Count; ++i) {
                const T b = bc[4 * t + i], c = bc[4 * t + 2 + i];
                const V gc = Weighted ? gy * load<V>(weight + i * lanes) : gy;
                const V g = carry[i] + gc * c;
                if (Weighted) grad_weight[i] += gy * h[i] * c;
                grad_c[i] = gc * h[i];
                h[i] = load<V>(hs + (2 * t + i) * lanes);
                carry[i] = g * load<V>(decays + (2 * t + i) * lanes);
                const V product = carry[i] * h[i];
                grad_a[i] += product * dt;
                grad_b[i] = g * drive;
                along_b += g * b;
                along_decay += product * load<V>(a + i * lanes);
            }
            store(through_b + t * lanes, along_b);
            store(through_decay + t * lanes, along_decay);
            add_lane_sums(grad_b[0], grad_c[0], grad_b[1], grad_c[1], grad_bc + 4 * t);
        }
        for (int64_t i = 0; i < Count; ++i) {
            store(s.carry + state + i * lanes, carry[i]);
            store(s.a + state + i * lanes, grad_a[i]);
            if (Weighted) store(s.weight + state + i * lanes, grad_weight[i]);
        }
    }

    template <bool Bounded, bool Weighted>
    static void retreat(const Problem<T>& p, const BackwardScratch& s, const Parameters& q, int64_t v) {
        int64_t n = 0;
        for (; n + 2 <= p.states; n += 2) retreat_some<Bounded, Weighted, 2>(p, s, q, v, n);
        if (n < p.states) retreat_some<Bounded, Weighted, 1>(p, s, q, v, n);
    }

    // From the sums over states to the gradients of x, of the step sizes and of what they are made of.
    static void finish_chunk(const Problem<T>& p, const Gradients<T>& grad, BackwardScratch& s, const Item& w,
                             const Parameters& q, int64_t v) {
        const int64_t steps = s.chunk.steps, width = low_width(p), part = v * p.chunk * lanes;
        const T *xs = s.chunk.x + part, *gys = s.gy + part;
        T* graw = s.through_decay;
        V grad_bias = load<V>(s.dt_bias + v * lanes), grad_skip = load<V>(s.skip + v * lanes);
        for (int64_t t = 0; t < steps; ++t) {
            const V x = load<V>(xs + t * lanes), gy = load<V>(gys + t * lanes), through_b = load<V>(s.through_b + t * lanes);
            const V g = (x * through_b + load<V>(s.through_decay + t * lanes)) * load<V>(s.slope + t * lanes);
            store(s.gx + part + t * lanes, load<V>(q.skip) * gy + load<V>(s.dt + t * lanes) * through_b);
            store(graw + t * lanes, g);
            grad_skip += gy * x;
            grad_bias += g;
        }
        store(s.dt_bias + v * lanes, grad_bias);
        store(s.skip + v * lanes, grad_skip);
        if (!p.rank)
            for (int64_t t = 0; t < steps; ++t)
                store_some(grad.dt + s.chunk.pixels[t] * p.channels + w.channel(v), load<V>(graw + t * lanes), w.count(v));
        for (int64_t r = 0; r < p.rank; r += 4) {
            V weight[4] = {}, sum[4] = {};
            const int64_t count = p.rank - r < 4 ? p.rank - r : 4;
            for (int64_t i = 0; i < count; ++i) {
                weight[i] = load<V>(q.dt_weight + (r + i) * lanes);
                sum[i] = load<V>(s.dt_weight + (v * p.rank + r + i) * lanes);
            }
            for (int64_t t = 0; t < steps; ++t) {
                const V g = load<V>(graw + t * lanes);
                const T* low = s.chunk.low + t * p.rank + r;  // may end behind the row: those sums are not used
                for (int64_t i = 0; i < 4; ++i) sum[i] += g * low[i];
                add_lane_sums(g * weight[0], g * weight[1], g * weight[2], g * weight[3], s.low + t * width + r);
            }
            for (int64_t i = 0; i < count; ++i) store(s.dt_weight + (v * p.rank + r + i) * lanes, sum[i]);
        }
    }

    // The sums over the channels of a unit join those of the units before it, in their order.
    static void add_rows(const Problem<T>& p, const Gradients<T>& grad, const BackwardScratch& s, const Item& w, int64_t k,
                         bool first) {
        const int64_t streams = p.directions * p.groups, stream = p.groups > 1 ? w.group : k, stride = pair_stride(p);
        for (int64_t t = 0; t < s.chunk.steps; ++t) {
            const int64_t at = s.chunk.pixels[t] * streams + stream;
            const int64_t later = s.chunk.pixels[t + ahead < s.chunk.steps ? t + ahead : t] * streams + stream;
            fetch(grad.b + later * p.states, p.states);
            fetch(grad.c + later * p.states, p.states);
            T *__restrict__ b = grad.b + at * p.states, *__restrict__ c = grad.c + at * p.states;
            T* __restrict__ dt = grad.dt + at * p.rank;
            const T *__restrict__ from = s.bc + 4 * t, *__restrict__ low = s.low + t * low_width(p);
            for (int64_t n = 0; n < p.states; ++n, from += n % 2 ? 0 : stride) {
                const int64_t i = n % 2 * 2;
                b[n] = first ? from[i] : b[n] + from[i];
                c[n] = first ? from[i + 1] : c[n] + from[i + 1];
            }
            for (int64_t r = 0; r < p.rank; ++r) dt[r] = first ? low[r] : dt[r] + low[r];
        }
    }

    // A direction's parameter gradients of one channel vector, from scratch to the image's slice of the output.
    static void write_parameters(const Problem<T>& p, const Gradients<T>& grad, const BackwardScratch& s, int64_t direction,
                                 int64_t v, int64_t channel, int64_t count) {
        const int64_t at = direction * p.channels;
        turn_back(s.a + v * block(p), p.states, grad.a + at * p.states, channel, count);
        if (grad.weight) turn_back(s.weight + v * block(p), p.states, grad.weight + at * p.states, channel, count);
        if (p.rank) turn_back(s.dt_weight + v * p.rank * lanes, p.rank, grad.dt_weight + at * p.rank, channel, count);
        store_some(grad.dt_bias + at + channel, load<V>(s.dt_bias + v * lanes), count);
        store_some(grad.skip + at + channel, load<V>(s.skip + v * lanes), count);
    }

    static void backward_item(const Problem<T>& p, const Gradients<T>& grad, const Item& w, char* memory, int64_t* progress) {
        if (!w.channels) return;
        Carver carver{memory, 0};
        BackwardScratch s(carver, p);
        const int64_t length = p.height * p.width, chunks = (length + p.chunk - 1) / p.chunk;
        int64_t done = 0;
        for (int64_t k = w.first_direction; k < w.end_direction; ++k) {
            const int64_t direction = w.image * p.directions + k;
            for (int64_t v = 0; v < w.vectors; ++v) s.parameters[v].read(p, k, w.channel(v), w.count(v));
            for (int64_t i = 0; i < w.vectors * block(p); ++i) s.carry[i] = s.a[i] = 0;
            for (int64_t i = 0; p.weight && i < w.vectors * block(p); ++i) s.weight[i] = 0;
            for (int64_t i = 0; i < w.vectors * p.rank * lanes; ++i) s.dt_weight[i] = 0;
            for (int64_t i = 0; i < w.vectors * lanes; ++i) s.dt_bias[i] = s.skip[i] = 0;
            for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
                s.chunk.read(p, w, k, chunk * p.chunk, length);
                s.chunk.gather(p, w, grad.y, p.channels, s.gy);
                const int64_t kept = (direction * (chunks - 1) + chunk - 1) * p.states * p.channels;
                for (int64_t v = 0; v < w.vectors; ++v) {
                    if (v % unit == 0) {
                        for (int64_t pair = 0; pair < pairs(p); ++pair)
                            for (int64_t i = 0; i < 4 * s.chunk.steps; ++i) s.bc[pair * pair_stride(p) + i] = 0;
                        for (int64_t i = 0; i < s.chunk.steps * low_width(p); ++i) s.low[i] = 0;
                    }
                    const T* x = s.chunk.x + v * p.chunk * lanes;
                    const bool bounded = step_sizes(p, s.parameters[v], s.chunk, v, s.dt, s.slope);
                    for (int64_t i = 0; i < s.chunk.steps * lanes; i += lanes) {
                        store(s.drive + i, load<V>(s.dt + i) * load<V>(x + i));
                        store(s.through_b + i, V{});
                        store(s.through_decay + i, V{});
                    }
                    for (int64_t n = 0; n < p.states; ++n) {
                        const T* from = grad.kept + kept + n * p.channels + w.channel(v);
                        store(s.before + n * lanes, chunk ? load_some<V>(from, w.count(v)) : V{});
                    }
                    auto run = bounded ? (p.weight ? retreat<true, true> : retreat<true, false>)
                                       : (p.weight ? retreat<false, true> : retreat<false, false>);
                    run(p, s, s.parameters[v], v);
                    finish_chunk(p, grad, s, w, s.parameters[v], v);
                    if (v % unit == unit - 1 || v + 1 == w.vectors) {
                        if (w.slot && v < unit) wait_until_above(progress + w.index - 1, done);
                        add_rows(p, grad, s, w, k, w.slot == 0 && v < unit);
                    }
                }
                s.chunk.scatter(p, w, s.gx, adds(p, k), result(p, grad.x, k));
                publish(progress + w.index, ++done);
            }
            for (int64_t v = 0; v < w.vectors; ++v) write_parameters(p, grad, s, direction, v, w.channel(v), w.count(v));
        }
    }

    // -------------------------------------------------------------------------------------------------- launchers

    static int64_t item_bytes(const Problem<T>& p, bool backward) {
        Carver counter{nullptr, 0};
        if (backward) BackwardScratch(counter, p);
        else ForwardScratch(counter, p);
        return counter.used;
    }
    static int64_t progress_bytes(const Problem<T>& p) { return (items(p) * int64_t(sizeof(int64_t)) + 63) / 64 * 64; }
    static int64_t scratch_bytes(const Problem<T>& p, bool backward) {
        return (p.threads < items(p) ? p.threads : items(p)) * item_bytes(p, backward) + progress_bytes(p);
    }

    // Adds the results of directions 1, 2, ... to the first one's, in their order.
    static void join_directions(const Problem<T>& p, T* first) {
        const int64_t size = p.batch * p.height * p.width * p.channels, part = 1 << 14;
        parallel_for(p.threads, (size + part - 1) / part, [&](int64_t index, int64_t) {
            const int64_t begin = index * part, end = begin + part < size ? begin + part : size;
            for (int64_t k = 1; k < p.directions; ++k)
                for (int64_t i = begin; i < end; ++i) first[i] += p.partial[(k - 1) * size + i];
        });
    }

    static void forward(const Problem<T>& p, const Outputs<T>& out) {
        char* memory = p.scratch + progress_bytes(p);
        const int64_t bytes = item_bytes(p, false);
        parallel_for(p.threads, items(p),
                     [&](int64_t index, int64_t thread) { forward_item(p, out, item(p, index), memory + thread * bytes); });
        if (p.partial) join_directions(p, out.y);
    }

    static void band(const Problem<T>& p, const Band<T>& part) {
        char* memory = p.scratch + progress_bytes(p);
        const int64_t bytes = item_bytes(p, false);
        parallel_for(p.threads, items(p),
                     [&](int64_t index, int64_t thread) { band_item(p, part, item(p, index), memory + thread * bytes); });
    }

    static void backward(const Problem<T>& p, const Gradients<T>& grad) {
        int64_t* progress = reinterpret_cast<int64_t*>(p.scratch);  // chunks that an item is through with
        for (int64_t i = 0; i < items(p); ++i) progress[i] = 0;
        char* memory = p.scratch + progress_bytes(p);
        const int64_t bytes = item_bytes(p, true);
        parallel_for(p.threads, items(p), [&](int64_t index, int64_t thread) {
            backward_item(p, grad, item(p, index), memory + thread * bytes, progress);
        });
        if (p.partial) join_directions(p, grad.x);
    }

    static constexpr Kernels<T> kernels() { return {scratch_bytes, forward, band, backward}; }
};

}  // namespace
}  // namespace SERPENT_ISA
}  // namespace serpent
