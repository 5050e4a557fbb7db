#define SERPENT_ISA baseline
#include "kernel.hpp"

namespace serpent {
extern const InstructionSet baseline_set = {"baseline", baseline::Scan<float>::kernels(), baseline::Scan<double>::kernels()};
}
