// The Python face of the kernels: checked arrays in, raw pointers out, the widest instruction set this processor has.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "block_module.hpp"
#include "problem.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using serpent::InstructionSet;

std::vector<const InstructionSet*> supported_sets() {
    std::vector<const InstructionSet*> sets;
#if defined(SERPENT_X86_KERNELS)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
        sets.push_back(&serpent::avx512_set);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
        sets.push_back(&serpent::avx2_set);
#endif
    sets.push_back(&serpent::baseline_set);
    return sets;
}

const InstructionSet& find_set(const std::string& name) {
    std::string known;
    for (const InstructionSet* set : supported_sets()) {
        if (name.empty() || name == set->name) return *set;
        known += known.empty() ? set->name : std::string(", ") + set->name;
    }
    throw std::invalid_argument("instruction set '" + name + "' is not one of those this processor has: " + known);
}

template <class T> const serpent::Kernels<T>& kernels_of(const InstructionSet& set);
template <> const serpent::Kernels<float>& kernels_of<float>(const InstructionSet& set) { return set.f32; }
template <> const serpent::Kernels<double>& kernels_of<double>(const InstructionSet& set) { return set.f64; }

template <class T> using In = nb::ndarray<const T, nb::device::cpu>;
template <class T> using Out = nb::ndarray<T, nb::device::cpu, nb::c_contig>;
using Scratch = nb::ndarray<uint8_t, nb::ndim<1>, nb::device::cpu, nb::c_contig>;

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(std::string("native scan: ") + what);
}

template <class Array> int64_t count(const Array& array) { return int64_t(array.size()); }

// (pixels, streams, row) with contiguous rows; any strides before that.
template <class T> serpent::Rows<T> rows(const In<T>& array, int64_t pixels, int64_t streams, int64_t length) {
    require(array.ndim() == 3 && int64_t(array.shape(0)) == pixels && int64_t(array.shape(1)) == streams &&
                int64_t(array.shape(2)) == length,
            "dt, B and C must be (pixels, streams, row)");
    require(length <= 1 || array.stride(2) == 1, "rows of dt, B and C must be contiguous");
    return {array.data(), array.stride(0), array.stride(1)};
}

template <class T> const T* dense(const std::optional<In<T>>& array, int64_t size) {
    if (!array) return nullptr;
    require(count(*array) == size, "a parameter has the wrong size");
    if (size == 0) return array->data();
    int64_t expected = 1;
    for (size_t i = array->ndim(); i-- > 0; expected *= int64_t(array->shape(i)))
        require(array->shape(i) == 1 || array->stride(i) == expected, "parameters must be contiguous");
    return array->data();
}

template <class T> T* output(const std::optional<Out<T>>& array, int64_t size) {
    if (!array) return nullptr;
    require(count(*array) == size, "an output has the wrong size");
    return array->data();
}

// Keeps the input arrays alive while their pointers are in use.
template <class T> class ScanProblem {
  public:
    ScanProblem(In<T> x, In<T> dt, In<T> b, In<T> c, In<T> a, std::optional<In<T>> dt_weight,
                std::optional<In<T>> dt_bias, std::optional<In<T>> skip, std::optional<In<T>> weight, int64_t height,
                int64_t width, int64_t groups, bool softplus, int64_t interval, int64_t slots, int64_t threads,
                const std::string& instruction_set)
        : x_(x), dt_(dt), b_(b), c_(c), a_(a), dt_weight_(dt_weight), dt_bias_(dt_bias), skip_(skip), weight_(weight),
          kernels_(kernels_of<T>(find_set(instruction_set))) {
        require(x.ndim() == 3 && a.ndim() == 3, "x must be (batch, length, D) and A (K, N, D)");
        require(interval > 0 && slots > 0 && threads > 0 && groups > 0 && height > 0 && width > 0, "sizes must be positive");
        p_.batch = int64_t(x.shape(0));
        p_.height = height;
        p_.width = width;
        p_.channels = int64_t(x.shape(2));
        p_.directions = int64_t(a.shape(0));
        p_.groups = groups;
        p_.states = int64_t(a.shape(1));
        p_.rank = dt_weight ? int64_t(dt_weight->shape(1)) : 0;
        p_.interval = interval;
        p_.slots = slots;
        p_.threads = threads;
        p_.softplus = softplus;
        require(int64_t(x.shape(1)) == height * width, "x does not have height * width pixels");
        require(!dt_weight || (dt_weight->ndim() == 3 && int64_t(dt_weight->shape(0)) == p_.directions &&
                               int64_t(dt_weight->shape(2)) == p_.channels),
                "dt_weight must be (K, R, D)");
        require(p_.rank > 0 || p_.directions == 1, "full-rank dt goes with one direction only");
        require(p_.batch > 0 && p_.channels > 0 && p_.states > 0, "batch, channels and states must not be empty");
        require(p_.channels % groups == 0 && (groups == 1 || p_.directions == 1), "groups must divide the channels");
        const int64_t parameters = p_.directions * p_.channels;
        p_.x = dense<T>(x, count(x));
        p_.a = dense<T>(a, parameters * p_.states);
        p_.dt_weight = dense<T>(dt_weight, parameters * p_.rank);
        p_.dt_bias = dense<T>(dt_bias, parameters);
        p_.skip = dense<T>(skip, parameters);
        p_.weight = dense<T>(weight, parameters * p_.states);
        const int64_t pixels = p_.batch * height * width, streams = p_.directions * groups;
        p_.dt = p_.rank ? rows<T>(dt, pixels, p_.directions, p_.rank) : rows<T>(dt, pixels, 1, p_.channels);
        p_.b = rows<T>(b, pixels, streams, p_.states);
        p_.c = rows<T>(c, pixels, streams, p_.states);
        chunks_ = (height * width + interval - 1) / interval;
    }

    int64_t scratch_bytes(bool backward) const { return threads() * kernels_.scratch_bytes(p_, backward); }

    void forward(Out<T> y, std::optional<Out<T>> kept, std::optional<Out<T>> last, Scratch scratch) {
        const int64_t states = p_.batch * p_.directions * p_.states * p_.channels;
        serpent::Outputs<T> out{output<T>(y, count(x_)), output<T>(kept, states * (chunks_ - 1)), output<T>(last, states)};
        set_scratch(scratch, false);
        nb::gil_scoped_release release;
        kernels_.forward(p_, out);
    }

    void backward(In<T> grad_y, std::optional<In<T>> kept, Out<T> grad_x, Out<T> grad_rows,
                  std::optional<Out<T>> grad_delta, Out<T> grad_a, Out<T> grad_dt_weight, Out<T> grad_dt_bias,
                  Out<T> grad_skip, std::optional<Out<T>> grad_weight, Scratch scratch) {
        const int64_t states = p_.batch * p_.directions * p_.states * p_.channels;
        const int64_t pixels = p_.batch * p_.height * p_.width, parameters = p_.batch * p_.directions * p_.channels;
        require(chunks_ == 1 || kept, "the states kept by the forward pass are missing");
        require(bool(grad_delta) == (p_.rank == 0) && bool(grad_weight) == bool(weight_), "a gradient output is missing");
        serpent::Gradients<T> grad{
            dense<T>(grad_y, count(x_)), dense<T>(kept, states * (chunks_ - 1)), output<T>(grad_x, count(x_)),
            output<T>(grad_rows, p_.slots * pixels * p_.directions * p_.groups * (p_.rank + 2 * p_.states)),
            output<T>(grad_delta, count(x_)), output<T>(grad_a, states),
            output<T>(grad_dt_weight, parameters * p_.rank), output<T>(grad_dt_bias, parameters),
            output<T>(grad_skip, parameters), output<T>(grad_weight, states)};
        set_scratch(scratch, true);
        nb::gil_scoped_release release;
        kernels_.backward(p_, grad);
    }

  private:
    int64_t threads() const {
        const int64_t items = p_.batch * p_.groups * p_.slots;
        return p_.threads < items ? p_.threads : (items > 0 ? items : 1);
    }
    void set_scratch(const Scratch& scratch, bool backward) {
        require(count(scratch) >= scratch_bytes(backward), "scratch is too small");
        p_.scratch = reinterpret_cast<char*>(scratch.data());
        p_.scratch_bytes = kernels_.scratch_bytes(p_, backward);
    }

    In<T> x_, dt_, b_, c_, a_;
    std::optional<In<T>> dt_weight_, dt_bias_, skip_, weight_;
    const serpent::Kernels<T>& kernels_;
    serpent::Problem<T> p_{};
    int64_t chunks_;
};

template <class T> void bind(nb::module_& m, const char* name) {
    typedef ScanProblem<T> Problem;
    nb::class_<Problem>(m, name)
        .def(nb::init<In<T>, In<T>, In<T>, In<T>, In<T>, std::optional<In<T>>, std::optional<In<T>>, std::optional<In<T>>,
                      std::optional<In<T>>, int64_t, int64_t, int64_t, bool, int64_t, int64_t, int64_t, const std::string&>(),
             "x"_a.noconvert(), "dt"_a.noconvert(), "b"_a.noconvert(), "c"_a.noconvert(), "a"_a.noconvert(),
             "dt_weight"_a.noconvert().none(), "dt_bias"_a.noconvert().none(), "skip"_a.noconvert().none(),
             "weight"_a.noconvert().none(), "height"_a, "width"_a, "groups"_a, "softplus"_a, "interval"_a, "slots"_a,
             "threads"_a, "instruction_set"_a)
        .def("scratch_bytes", &Problem::scratch_bytes, "backward"_a)
        .def("forward", &Problem::forward, "y"_a.noconvert(), "kept"_a.noconvert().none(), "last"_a.noconvert().none(),
             "scratch"_a.noconvert())
        .def("backward", &Problem::backward, "grad_y"_a.noconvert(), "kept"_a.noconvert().none(), "grad_x"_a.noconvert(),
             "grad_rows"_a.noconvert(), "grad_delta"_a.noconvert().none(), "grad_a"_a.noconvert(),
             "grad_dt_weight"_a.noconvert(), "grad_dt_bias"_a.noconvert(), "grad_skip"_a.noconvert(),
             "grad_weight"_a.noconvert().none(), "scratch"_a.noconvert());
}

}  // namespace

NB_MODULE(_native, m) {
    bind<float>(m, "ProblemFloat32");
    bind<double>(m, "ProblemFloat64");
    serpent::bind_block(m, [](const std::string& name) { return find_set(name).name; });
    m.def("instruction_sets", [] {
        nb::list names;
        for (const InstructionSet* set : supported_sets()) names.append(set->name);
        return names;
    });
#ifdef _OPENMP
    m.attr("openmp") = true;
#else
    m.attr("openmp") = false;
#endif
}
