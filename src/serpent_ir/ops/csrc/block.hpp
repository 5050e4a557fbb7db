// The pointwise parts of a VSS block as plain pointers and strides: what block_module.cpp fills in and
// block_kernel.hpp reads. What problem.hpp says of offsets and of the standard library holds here too.
#pragma once
#include <cstdint>

namespace serpent {

// y = SiLU(bias + depthwise 3x3 convolution of x), channels last, zeros around each image.
template <class T>
struct Convolution {
    int64_t batch, height, width, channels;
    const T* x;                                       // channels are contiguous
    int64_t image_stride, row_stride, pixel_stride;   // of x
    bool above, below;                                // x has rows -1 and `height` too: it is a band of a larger map
    const T* weight;                                  // (D, 3, 3)
    const T* bias;                                    // (D)
    int64_t threads;
};

template <class T>
struct ConvolutionGradients {
    const T* y;   // in: (B, H, W, D)
    T* before;    // scratch: (B, H, W, D), the gradient before SiLU
    T* partial;   // scratch: (parts, 10, D), sums over parts of the map
    T* x;         // (B, H, W, D)
    T* weight;    // (D, 3, 3)
    T* bias;      // (D)
};

// out = (LayerNorm(y) * weight + bias) * SiLU(z), pixel by pixel; without the gate when z is null.
template <class T>
struct Gate {
    int64_t pixels, channels;
    const T* y;       // (pixels, D)
    const T* z;       // rows of D, or null
    int64_t z_stride; // from pixel to pixel
    const T* weight;  // (D)
    const T* bias;    // (D)
    T epsilon;
    int64_t threads;
};

template <class T>
struct GateGradients {
    const T* out;  // in: (pixels, D)
    T* scratch;    // (threads, D)
    T* partial;    // scratch: (parts, 2, D)
    T* y;          // (pixels, D)
    T* z;          // (pixels, D)
    T* weight;     // (D)
    T* bias;       // (D)
};

// The cuts of the work follow from sizes alone, and so do the bits of the result, whatever the number of threads.
constexpr int64_t channels_of_item = 64;

// Rows of an image that one item of a convolution covers: at most 32 parts, of at least 4 rows.
static inline int64_t rows_of_item(int64_t height) { return height > 128 ? (height + 31) / 32 : 4; }
static inline int64_t parts_of_rows(int64_t height) {
    return (height + rows_of_item(height) - 1) / rows_of_item(height);
}

// Pixels that one item of a gate covers: at most 256 parts, of at least 16 pixels.
static inline int64_t pixels_of_item(int64_t pixels) { return pixels > 4096 ? (pixels + 255) / 256 : 16; }
static inline int64_t parts_of_pixels(int64_t pixels) {
    return (pixels + pixels_of_item(pixels) - 1) / pixels_of_item(pixels);
}

// One instruction set's kernels.
template <class T>
struct BlockKernels {
    void (*convolve)(const Convolution<T>&, T* y);
    void (*convolve_backward)(const Convolution<T>&, const ConvolutionGradients<T>&);
    void (*gate)(const Gate<T>&, T* out);
    void (*gate_backward)(const Gate<T>&, const GateGradients<T>&);
};

struct BlockSet {
    const char* name;
    BlockKernels<float> f32;
    BlockKernels<double> f64;
};

extern const BlockSet avx512_block, avx2_block, baseline_block;

}  // namespace serpent
