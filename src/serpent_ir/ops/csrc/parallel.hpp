// Work shared out among threads: the one place where the kernels meet them.
#pragma once
#include <cstdint>

namespace serpent {

// Calls run(context, item, thread) once for every item below `items`, on at most `threads` threads, 0 <= thread < threads.
// Which thread gets which item is left open. Denormal numbers count as zero meanwhile. Where OpenMP is compiled in, its
// threads do the work, which PyTorch shares; in a forked process, where those are gone, and without it, fresh threads.
void parallel_for(int64_t threads, int64_t items, void (*run)(void* context, int64_t item, int64_t thread), void* context);

bool has_openmp();

// The same for a function object; run(item, thread).
template <class Run> inline void parallel_for(int64_t threads, int64_t items, Run run) {
    parallel_for(
        threads, items, [](void* context, int64_t item, int64_t thread) { (*static_cast<Run*>(context))(item, thread); }, &run);
}

}  // namespace serpent
