// The Python face of the kernels. Tensors come as plain addresses and strides, which costs a tenth of what array objects
// do: ops/native.py, the only caller, passes what ops/problem.py has checked, and keeps the tensors alive.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "block_module.hpp"
#include "parallel.hpp"
#include "problem.hpp"

namespace nb = nanobind;

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
        if (name == set->name) return *set;
        known += known.empty() ? set->name : std::string(", ") + set->name;
    }
    throw std::invalid_argument("instruction set '" + name + "' is not one of those this processor has: " + known);
}

template <class T> const serpent::Kernels<T>& kernels_of(const InstructionSet& set);
template <> const serpent::Kernels<float>& kernels_of<float>(const InstructionSet& set) { return set.f32; }
template <> const serpent::Kernels<double>& kernels_of<double>(const InstructionSet& set) { return set.f64; }

// A pointer of the structure as an attribute: an address, 0 for null.
template <class Struct, class T> void pointer(nb::class_<Struct>& of, const char* name, T* Struct::*member) {
    of.def_prop_rw(
        name, [member](const Struct& s) { return reinterpret_cast<uintptr_t>(s.*member); },
        [member](Struct& s, uintptr_t address) { s.*member = reinterpret_cast<T*>(address); });
}

template <class Struct, class T> void rows(nb::class_<Struct>& of, const char* name, serpent::Rows<T> Struct::*member) {
    of.def(name, [member](Struct& s, uintptr_t address, int64_t pixel_stride, int64_t stream_stride) {
        s.*member = {reinterpret_cast<const T*>(address), pixel_stride, stream_stride};
    });
}

template <class T> void bind(nb::module_& m, const std::string& type) {
    typedef serpent::Problem<T> Problem;
    typedef serpent::Outputs<T> Outputs;
    typedef serpent::Band<T> Band;
    typedef serpent::Gradients<T> Gradients;

    nb::class_<Outputs> outputs(m, ("Outputs" + type).c_str());
    outputs.def("__init__", [](Outputs* to) { new (to) Outputs{}; });
    pointer(outputs, "y", &Outputs::y);
    pointer(outputs, "kept", &Outputs::kept);
    pointer(outputs, "last", &Outputs::last);

    nb::class_<Band> band(m, ("Band" + type).c_str());
    band.def("__init__", [](Band* to) { new (to) Band{}; });
    pointer(band, "before", &Band::before);
    pointer(band, "after", &Band::after);
    pointer(band, "step_sum", &Band::step_sum);
    pointer(band, "y", &Band::y);

    nb::class_<Gradients> gradients(m, ("Gradients" + type).c_str());
    gradients.def("__init__", [](Gradients* to) { new (to) Gradients{}; });
    pointer(gradients, "grad_y", &Gradients::y);
    pointer(gradients, "kept", &Gradients::kept);
    pointer(gradients, "x", &Gradients::x);
    pointer(gradients, "dt", &Gradients::dt);
    pointer(gradients, "b", &Gradients::b);
    pointer(gradients, "c", &Gradients::c);
    pointer(gradients, "a", &Gradients::a);
    pointer(gradients, "dt_weight", &Gradients::dt_weight);
    pointer(gradients, "dt_bias", &Gradients::dt_bias);
    pointer(gradients, "skip", &Gradients::skip);
    pointer(gradients, "weight", &Gradients::weight);

    nb::class_<Problem> problem(m, ("Problem" + type).c_str());
    problem.def("__init__", [](Problem* to) { new (to) Problem{}; })
        .def_rw("batch", &Problem::batch)
        .def_rw("height", &Problem::height)
        .def_rw("width", &Problem::width)
        .def_rw("channels", &Problem::channels)
        .def_rw("directions", &Problem::directions)
        .def_rw("groups", &Problem::groups)
        .def_rw("states", &Problem::states)
        .def_rw("rank", &Problem::rank)
        .def_rw("interval", &Problem::interval)
        .def_rw("chunk", &Problem::chunk)
        .def_rw("slots", &Problem::slots)
        .def_rw("threads", &Problem::threads)
        .def_rw("softplus", &Problem::softplus);
    pointer(problem, "x", &Problem::x);
    rows(problem, "set_dt", &Problem::dt);
    rows(problem, "set_b", &Problem::b);
    rows(problem, "set_c", &Problem::c);
    pointer(problem, "a", &Problem::a);
    pointer(problem, "dt_weight", &Problem::dt_weight);
    pointer(problem, "dt_bias", &Problem::dt_bias);
    pointer(problem, "skip", &Problem::skip);
    pointer(problem, "weight", &Problem::weight);
    pointer(problem, "partial", &Problem::partial);
    pointer(problem, "scratch", &Problem::scratch);
    problem
        .def("scratch_bytes",
             [](const Problem& p, const std::string& set, bool backward) {
                 return kernels_of<T>(find_set(set)).scratch_bytes(p, backward);
             })
        .def("forward",
             [](const Problem& p, const std::string& set, const Outputs& out) {
                 const auto& kernels = kernels_of<T>(find_set(set));
                 nb::gil_scoped_release release;
                 kernels.forward(p, out);
             })
        .def("band",
             [](const Problem& p, const std::string& set, const Band& part) {
                 const auto& kernels = kernels_of<T>(find_set(set));
                 nb::gil_scoped_release release;
                 kernels.band(p, part);
             })
        .def("backward", [](const Problem& p, const std::string& set, const Gradients& grad) {
            const auto& kernels = kernels_of<T>(find_set(set));
            nb::gil_scoped_release release;
            kernels.backward(p, grad);
        });
}

}  // namespace

NB_MODULE(_native, m) {
    bind<float>(m, "Float32");
    bind<double>(m, "Float64");
    serpent::bind_block(m, [](const std::string& name) { return find_set(name).name; });
    m.def("instruction_sets", [] {
        nb::list names;
        for (const InstructionSet* set : supported_sets()) names.append(set->name);
        return names;
    });
    m.attr("openmp") = serpent::has_openmp();
}
