// What a bench needs: threads that start together, a clock, memory, and the fastest read of it.
#pragma once

#include "product/product.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace ecl_check {

inline double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline double median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v.empty() ? 0 : v[v.size() / 2];
}

// Threads that start a job together, as ggml's do: spinning, so that waking up costs nothing.
class Team {
  public:
    explicit Team(int n) : n_(n) {
        for (int i = 1; i < n; ++i) {
            threads_.emplace_back([this, i] { work(i); });
        }
    }
    ~Team() {
        stop_ = true;
        for (std::thread & t : threads_) {
            t.join();
        }
    }
    int size() const { return n_; }

    static auto aligned(size_t bytes) {
        const auto release = [](uint8_t * p) { std::free(p); };
        return std::unique_ptr<uint8_t, void (*)(uint8_t *)>(
            (uint8_t *) std::aligned_alloc(64, (bytes + 63) / 64 * 64), release);
    }

    // Seconds until every thread has finished job(thread).
    double run(const std::function<void(int)> & job) {
        job_ = &job;
        done_ = 0;
        const double start = now();
        ++round_;
        job(0);
        while (done_ != n_ - 1) {
        }
        return now() - start;
    }

  private:
    void work(int i) {
        for (int seen = 0; !stop_;) {
            if (round_ != seen) {
                ++seen;
                (*job_)(i);
                ++done_;
            } else {
                std::this_thread::yield();
            }
        }
    }

    int n_;
    const std::function<void(int)> * job_ = nullptr;
    std::atomic<int> round_{ 0 }, done_{ 0 };
    std::atomic<bool> stop_{ false };
    std::vector<std::thread> threads_;
};

// The fastest that memory gives: every line once, nothing computed.
inline void raw_read(const uint8_t * p, size_t bytes) {
    uint64_t sum[8] = {};
    for (size_t i = 0; i + 64 <= bytes; i += 64) {
        __builtin_prefetch(p + i + ecl::prefetch_far, 0, 2);
        __builtin_prefetch(p + i + ecl::prefetch_near, 0, 3);
        for (int j = 0; j < 8; ++j) {
            uint64_t v;
            std::memcpy(&v, p + i + 8 * j, 8);
            sum[j] ^= v;
        }
    }
    for (uint64_t & s : sum) {
        asm volatile("" : "+r"(s));
    }
}

}  // namespace ecl_check
