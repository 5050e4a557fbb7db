#define SERPENT_ISA avx512
#include "kernel.hpp"
#include "block_kernel.hpp"

namespace serpent {
extern const InstructionSet avx512_set = {"avx512", avx512::Scan<float>::kernels(), avx512::Scan<double>::kernels()};
extern const BlockSet avx512_block = {"avx512", avx512::Block<float>::kernels(), avx512::Block<double>::kernels()};
}
