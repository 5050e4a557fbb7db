// Work shared out among threads: the one place where the kernels meet them.
#pragma once
#include <cstdint>

namespace serpent {

// Calls run(context, item, thread) once for every item below `items`, on at most `threads` threads, 0 <= thread < threads.
// Items are begun in their order; which thread gets which is left open. Denormal numbers count as zero meanwhile. Where
// OpenMP is compiled in, its threads do the work, which PyTorch shares; in a forked process, where those are gone, and
// without it, fresh threads.
void parallel_for(int64_t threads, int64_t items, void (*run)(void* context, int64_t item, int64_t thread), void* context);

bool has_openmp();

// For an item that needs another's result: `publish` a count of what is done, wait until another one's is above a value.
// Waiting for an item before one's own always ends, since that one has begun.
void publish(int64_t* counter, int64_t value);
void wait_until_above(const int64_t* counter, int64_t value);

// The same for a function object; run(item, thread).
template <class Run> inline void parallel_for(int64_t threads, int64_t items, Run run) {
    parallel_for(
        threads, items, [](void* context, int64_t item, int64_t thread) { (*static_cast<Run*>(context))(item, thread); }, &run);
}

}  // namespace serpent
