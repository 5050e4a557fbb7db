#define SERPENT_ISA avx512
#include "kernel.hpp"

namespace serpent {
extern const InstructionSet avx512_set = {"avx512", avx512::Scan<float>::kernels(), avx512::Scan<double>::kernels()};
}
