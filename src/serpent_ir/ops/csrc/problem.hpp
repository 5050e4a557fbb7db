// One selective-scan problem as plain pointers and strides: what module.cpp fills in and the kernels read.
// Every offset is 64 bits wide. No template of the standard library appears in the kernels' translation units: an inline
// function compiled there for AVX-512 could otherwise be picked by the linker for a machine that lacks it.
#pragma once
#include <cstdint>

namespace serpent {

// A per-pixel input (dt, B or C): `data + pixel * pixel_stride + stream * stream_stride` is a contiguous row.
// A stream is a scan direction (maps) or a group of channels (sequences).
template <class T>
struct Rows {
    const T* data;
    int64_t pixel_stride;
    int64_t stream_stride;
};

template <class T>
struct Problem {
    int64_t batch, height, width;  // length of a sequence = height * width; a plain sequence has height 1
    int64_t channels;              // D
    int64_t directions;            // K; each direction reads the whole map in its own order
    int64_t groups;                // G; B and C are shared by channels / groups neighbouring channels
    int64_t states;                // N
    int64_t rank;                  // R of the low-rank dt; 0: dt is given for every channel
    int64_t interval;              // steps between two kept states
    int64_t chunk;                 // steps that a kernel works on at a time, a multiple of 4: a whole part of `interval` forwards,
                                   // `interval` backwards, less where the sequence is shorter
    int64_t slots;                 // parts of a group's channels that are worked on independently
    int64_t threads;
    bool softplus;
    const T* x;                    // (batch, length, D)
    Rows<T> dt, b, c;
    const T* a;                    // (K, D, N), negative
    const T* dt_weight;            // (K, D, R); null when rank == 0
    const T* dt_bias;              // (K, D) or null
    const T* skip;                 // (K, D) or null
    const T* weight;               // (K, D, N) or null: a factor of C that depends on channel and state only
    T* partial;                    // (K - 1, batch, length, D): results of directions 1, 2, ... when each is worked on by
                                   // itself; null: one after the other, added in place. The same bits either way.
    char* scratch;                 // scratch_bytes
};

template <class T>
struct Outputs {
    T* y;       // (batch, length, D)
    T* kept;    // (batch, K, intervals - 1, N, D) or null
    T* last;    // (batch, K, D, N)
};

// The scan of a band, some neighbouring rows of a larger map: what it takes over from the rest, and hands on. A segment is a
// stretch of a path within the band: all of it for the orders along rows, a column of the band for those along columns.
// Segments are numbered by direction, then in the direction's own order.
template <class T>
struct Band {
    const T* before;  // (segments, N, D): the states before each segment; null: zeros
    T* after;         // (segments, N, D): those after it
    T* step_sum;      // (segments, D): the sum of its step sizes; null when not wanted
    T* y;             // (length, D); null: states only, and nothing for direction 0
};

template <class T>
struct Gradients {
    const T* y;        // in: (batch, length, D)
    const T* kept;     // in: as kept by the forward pass
    T* x;              // (batch, length, D)
    T* dt;             // (batch, length, K, R), or (batch, length, D) when rank == 0
    T *b, *c;          // (batch, length, K * G, N)
    T* a;              // (batch, K, D, N); these five are summed over the batch by the caller
    T* dt_weight;      // (batch, K, D, R)
    T* dt_bias;        // (batch, K, D)
    T* skip;           // (batch, K, D)
    T* weight;         // (batch, K, D, N) or null
};

// One instruction set's kernels.
template <class T>
struct Kernels {
    int64_t (*scratch_bytes)(const Problem<T>&, bool backward);
    void (*forward)(const Problem<T>&, const Outputs<T>&);
    void (*band)(const Problem<T>&, const Band<T>&);  // one image, one group, no weight, no partial
    void (*backward)(const Problem<T>&, const Gradients<T>&);
};

struct InstructionSet {
    const char* name;
    Kernels<float> f32;
    Kernels<double> f64;
};

extern const InstructionSet avx512_set, avx2_set, baseline_set;

}  // namespace serpent
