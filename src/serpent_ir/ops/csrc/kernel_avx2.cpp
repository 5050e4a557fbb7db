#define SERPENT_ISA avx2
#include "kernel.hpp"

namespace serpent {
extern const InstructionSet avx2_set = {"avx2", avx2::Scan<float>::kernels(), avx2::Scan<double>::kernels()};
}
