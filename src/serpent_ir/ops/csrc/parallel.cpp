#include "parallel.hpp"

#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#ifdef __SSE__
#include <immintrin.h>
#endif

namespace serpent {
namespace {

// Denormal numbers, which a decaying state ends in and which cost up to a hundred times as much, count as zero.
class DenormalsAreZero {
#if defined(__SSE__)
    unsigned before_ = _mm_getcsr();

  public:
    DenormalsAreZero() { _mm_setcsr(before_ | 0x8040); }
    ~DenormalsAreZero() { _mm_setcsr(before_); }
#elif defined(__aarch64__)
    uint64_t before_;
    static void set(uint64_t value) { __asm__ volatile("msr fpcr, %0" : : "r"(value)); }

  public:
    DenormalsAreZero() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
        set(before_ | (uint64_t(1) << 24));
    }
    ~DenormalsAreZero() { set(before_); }
#else
  public:
    DenormalsAreZero() {}
#endif
};

std::atomic<bool> forked{false};

#if defined(__unix__) || defined(__APPLE__)
const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

}  // namespace

void parallel_for(int64_t threads, int64_t items, void (*run)(void*, int64_t, int64_t), void* context) {
    std::atomic<int64_t> next{0};
    const auto work = [&](int64_t thread) {
        DenormalsAreZero guard;
        for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) run(context, item, thread);
    };
    if (threads > items) threads = items;
    if (threads <= 1) return work(0);
#ifdef _OPENMP
    if (!forked) {
#pragma omp parallel num_threads(int(threads))
        work(omp_get_thread_num());
        return;
    }
#endif
    std::vector<std::thread> others;
    others.reserve(size_t(threads - 1));
    try {
        for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
    } catch (const std::system_error&) {  // the system gives no more: those that there are do the work
    }
    work(0);
    for (std::thread& other : others) other.join();
}

void publish(int64_t* counter, int64_t value) { __atomic_store_n(counter, value, __ATOMIC_RELEASE); }

void wait_until_above(const int64_t* counter, int64_t value) {
    for (int tries = 0; __atomic_load_n(counter, __ATOMIC_ACQUIRE) <= value;) {
        if (tries < 1000) ++tries;
        else std::this_thread::yield();  // the other thread may need this processor
    }
}

bool has_openmp() {
#ifdef _OPENMP
    return true;
#else
    return false;
#endif
}

}  // namespace serpent
