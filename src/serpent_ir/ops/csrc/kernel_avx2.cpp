#define SERPENT_ISA avx2
#include "kernel.hpp"
#include "block_kernel.hpp"

namespace serpent {
extern const InstructionSet avx2_set = {"avx2", avx2::Scan<float>::kernels(), avx2::Scan<double>::kernels()};
extern const BlockSet avx2_block = {"avx2", avx2::Block<float>::kernels(), avx2::Block<double>::kernels()};
}
