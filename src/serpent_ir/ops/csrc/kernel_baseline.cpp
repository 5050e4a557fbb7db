#define SERPENT_ISA baseline
#include "kernel.hpp"
#include "block_kernel.hpp"

namespace serpent {
extern const InstructionSet baseline_set = {"baseline", baseline::Scan<float>::kernels(), baseline::Scan<double>::kernels()};
extern const BlockSet baseline_block = {"baseline", baseline::Block<float>::kernels(), baseline::Block<double>::kernels()};
}
