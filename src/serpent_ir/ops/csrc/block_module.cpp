// The Python face of the kernels of block_kernel.hpp. Tensors come as addresses and strides, which the Python side has
// checked (native_block.py): handing over arrays would take as long as the kernels on small maps.
#include "block_module.hpp"

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "block.hpp"

namespace nb = nanobind;

namespace serpent {
namespace {

template <class T> T* at(uintptr_t address) { return reinterpret_cast<T*>(address); }

const BlockSet& find_set(const char* name) {
#if defined(SERPENT_X86_KERNELS)
    for (const BlockSet* set : {&avx512_block, &avx2_block})
        if (!std::strcmp(set->name, name)) return *set;
#endif
    return baseline_block;
}

// One instruction set's kernels for one type.
template <class T> class Kernels {
  public:
    explicit Kernels(const BlockKernels<T>& kernels) : kernels_(kernels) {}

    typedef int64_t I;
    typedef uintptr_t P;

    void convolve(I batch, I height, I width, I channels, P x, I image_stride, I row_stride, I pixel_stride,
                  bool above, bool below, P weight, P bias, P y, I threads) const {
        nb::gil_scoped_release release;
        const Convolution<T> p{batch,        height, width, channels,      at<T>(x),    image_stride, row_stride,
                               pixel_stride, above,  below, at<T>(weight), at<T>(bias), threads};
        kernels_.convolve(p, at<T>(y));
    }
    void convolve_backward(I batch, I height, I width, I channels, P x, I image_stride, I row_stride, I pixel_stride,
                           P weight, P bias, P grad_y, P before, P grad_x, P grad_weight, P grad_bias, I threads) const {
        nb::gil_scoped_release release;
        const Convolution<T> p{batch,        height, width, channels,      at<T>(x),    image_stride, row_stride,
                               pixel_stride, false,  false, at<T>(weight), at<T>(bias), threads};
        std::vector<T> partial(batch * parts_of_rows(height) * 10 * channels);
        kernels_.convolve_backward(p, {at<T>(grad_y), at<T>(before), partial.data(), at<T>(grad_x),
                                       at<T>(grad_weight), at<T>(grad_bias)});
    }
    void gate(I pixels, I channels, P y, P z, I z_stride, P weight, P bias, double epsilon, P out, I threads) const {
        nb::gil_scoped_release release;
        const Gate<T> p{pixels, channels, at<T>(y), at<T>(z), z_stride, at<T>(weight), at<T>(bias), T(epsilon), threads};
        kernels_.gate(p, at<T>(out));
    }
    void gate_backward(I pixels, I channels, P y, P z, I z_stride, P weight, P bias, double epsilon, P grad_out,
                       P grad_y, P grad_z, P grad_weight, P grad_bias, I threads) const {
        nb::gil_scoped_release release;
        const Gate<T> p{pixels, channels, at<T>(y), at<T>(z), z_stride, at<T>(weight), at<T>(bias), T(epsilon), threads};
        std::vector<T> scratch(threads * channels), partial(parts_of_pixels(pixels) * 2 * channels);
        kernels_.gate_backward(p, {at<T>(grad_out), scratch.data(), partial.data(), at<T>(grad_y), at<T>(grad_z),
                                   at<T>(grad_weight), at<T>(grad_bias)});
    }

  private:
    const BlockKernels<T>& kernels_;
};

template <class T> void bind_kernels(nb::module_& m, const char* name) {
    nb::class_<Kernels<T>>(m, name)
        .def("convolve", &Kernels<T>::convolve)
        .def("convolve_backward", &Kernels<T>::convolve_backward)
        .def("gate", &Kernels<T>::gate)
        .def("gate_backward", &Kernels<T>::gate_backward);
}

}  // namespace

void bind_block(nb::module_& m, const char* (*checked)(const std::string&)) {
    bind_kernels<float>(m, "BlockFloat32");
    bind_kernels<double>(m, "BlockFloat64");
    m.def("block_float32", [checked](const std::string& set) { return Kernels<float>(find_set(checked(set)).f32); });
    m.def("block_float64", [checked](const std::string& set) { return Kernels<double>(find_set(checked(set)).f64); });
}

}  // namespace serpent
