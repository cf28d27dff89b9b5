// cuda_shim.h - compile CUDA C++ kernels with a host C++17 compiler and run them, one block at a
// time, on the CPU.  Every CUDA thread is a fiber; fibers switch only at barriers and warp
// collectives, so a run is deterministic for a given schedule.  For tests, not for speed.
#pragma once
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <tuple>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>
// Kernels are compiled quickly rather than well, but switching threads takes most of a run.
#pragma GCC push_options
#pragma GCC optimize("O2")
#define CUDA_SHIM 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __managed__
#define __shared__ static __attribute__((section("shim_shared")))
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
#define SHIM_VEC(T, N, A)                                                                          \
    struct alignas(A * 2) N##2 {                                                                   \
        T x, y;                                                                                    \
    };                                                                                             \
    struct N##3 {                                                                                  \
        T x, y, z;                                                                                 \
    };                                                                                             \
    struct alignas(A * 4 > 16 ? 16 : A * 4) N##4 {                                                 \
        T x, y, z, w;                                                                              \
    };                                                                                             \
    static inline N##2 make_##N##2(T a, T b) {                                                     \
        return {a, b};                                                                             \
    }                                                                                              \
    static inline N##4 make_##N##4(T a, T b, T c, T d) {                                           \
        return {a, b, c, d};                                                                       \
    }
SHIM_VEC(float, float, 4)
SHIM_VEC(int, int, 4)
SHIM_VEC(double, double, 8)
SHIM_VEC(short, short, 2)
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) {
    return {a, b, c, d};
}

namespace shim {
constexpr size_t kStack = 64 << 10, kMaxThreads = 1024, kPage = 4096, kGuard = 64 << 20;
enum State : uint8_t { READY, AT_BLOCK, AT_WARP, DONE };
struct Copy { // that was started, and is done when the thread waits for it
    void* to;
    const void* from;
    unsigned nbytes;
};
struct Fiber {
    uint3 tid;
    int linear, line, vote;
    void* place[5]; // for __builtin_setjmp, which takes a tenth of the time of setjmp
    std::vector<Copy> copies;
    bool started;
    ucontext_t uc;
    uint64_t got[32]; // with a part of the warp, while other parts exchange something else
};
// What threads leave for each other lies close together: they are switched as fast as it is reached.
struct Warp {
    unsigned live, waiting, mask[32];
    uint64_t sent[32];
    uint64_t got[32]; // by all live lanes; all have read it when the next exchange is complete
    const uint64_t* from[32];
};
struct Ctx {
    dim3 grid, block;
    uint3 bid;
    Fiber* f = nullptr;
    Warp w[kMaxThreads / 32];
    State st[kMaxThreads];
    int n = 0, live = 0, at_block = 0;
    Fiber* cur = nullptr;
    void* sched[5];
    char *stacks = nullptr, *dyn = nullptr, *alt = nullptr;
    void (*body)(void*) = nullptr;
    void* arg = nullptr;
    char err[512] = {0};
    void* fault = nullptr;
    int vote_or = 0, vote_and = 1, vote_count = 0;
};
static Ctx C;
// Callers must not know which registers these functions leave alone: other threads do not.
#define SHIM_SWITCH __attribute__((noinline, noipa))
[[noreturn]] SHIM_SWITCH static void to_scheduler() {
    __builtin_longjmp(C.sched, 1);
}
SHIM_SWITCH static void yield() {
    if (!__builtin_setjmp(C.cur->place))
        to_scheduler();
}
static void fail(const char* what, int line) {
    if (C.err[0])
        return;
    int n = snprintf(C.err, sizeof C.err, "%s: block %u,%u,%u thread %u,%u,%u", what, C.bid.x,
                     C.bid.y, C.bid.z, C.cur->tid.x, C.cur->tid.y, C.cur->tid.z);
    if (line)
        snprintf(C.err + n, sizeof C.err - n, ", kernel line %d", line);
}
// Memory whose last byte (up to 16-byte alignment) touches an inaccessible page.
static char* guarded(size_t n) {
    size_t body = (n + kPage - 1) / kPage * kPage;
    char* p = (char*)mmap(0, body + 2 * kGuard, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mprotect(p + kGuard, body, PROT_READ | PROT_WRITE);
    memset(p + kGuard, 0xA5, body);
    return p + kGuard + body - (n + 15) / 16 * 16;
}
static void unguard(char* q, size_t n) {
    size_t body = (n + kPage - 1) / kPage * kPage;
    munmap(q + (n + 15) / 16 * 16 - body - kGuard, body + 2 * kGuard);
}
static void try_release_block() {
    if (!C.live || C.at_block != C.live)
        return;
    int vote = C.vote_or | C.vote_and << 1 | C.vote_count << 2;
    for (int i = 0; i < C.n; ++i)
        if (C.st[i] == AT_BLOCK) {
            C.st[i] = READY;
            C.f[i].vote = vote;
        }
    C.at_block = 0;
    C.vote_or = 0;
    C.vote_and = 1;
    C.vote_count = 0;
}
static int block_barrier(int line, bool pred = false) {
    static int first_line;
    Fiber* me = C.cur;
    if (!C.at_block)
        first_line = line;
    else if (first_line != line)
        fail("threads of one block meet at different __syncthreads", line);
    C.st[me->linear] = AT_BLOCK;
    me->line = line;
    C.at_block++;
    C.vote_or |= pred;
    C.vote_and &= pred;
    C.vote_count += pred;
    try_release_block();
    yield();
    return me->vote;
}
static void
try_release_warp(int w, unsigned mask) { // complete when every live lane of the mask waits with it
    Warp& warp = C.w[w];
    unsigned need = warp.live & mask;
    if (!need || (warp.waiting & need) != need)
        return;
    for (int i = 0; i < 32; ++i)
        if (need >> i & 1 && warp.mask[i] != mask)
            return;
    for (int i = 0; i < 32; ++i)
        if (need >> i & 1) {
            uint64_t* got = need == warp.live ? warp.got : C.f[w * 32 + i].got;
            if (got != warp.got || need >> i == 1) // of all lanes' once, with the last
                for (int k = 0; k < 32; ++k)       // lanes that take no part read as all ones
                    got[k] = need >> k & 1 ? warp.sent[k] : ~0ull;
            warp.from[i] = got;
            C.st[w * 32 + i] = READY;
        }
    warp.waiting &= ~need;
}
static inline const uint64_t* warp_exchange(unsigned mask, uint64_t v, int line = 0) {
    Fiber* me = C.cur;
    int w = me->linear / 32, l = me->linear & 31;
    if (!(mask >> l & 1))
        fail("calling lane is not in its own warp mask", line);
    C.st[me->linear] = AT_WARP;
    me->line = line;
    C.w[w].mask[l] = mask;
    C.w[w].sent[l] = v;
    C.w[w].waiting |= 1u << l;
    try_release_warp(w, mask);
    yield();
    return C.w[w].from[l];
}
static void entry() {
    for (;;) { // a fiber lives through all blocks of a launch
        C.body(C.arg);
        Fiber* me = C.cur;
        int w = me->linear / 32;
        C.st[me->linear] = DONE;
        C.live--;
        C.w[w].live &= ~(1u << (me->linear & 31));
        try_release_block();
        for (int i = 0; i < 32; ++i)
            if (C.w[w].waiting >> i & 1)
                try_release_warp(w, C.w[w].mask[i]);
        yield();
    }
}
static const char* meaning(int sig) {
    if (sig == SIGFPE)
        return "integer division by zero";
    return sig == SIGILL ? "address is not aligned" : "invalid memory access";
}
static void on_signal(int sig, siginfo_t* si, void*) {
    C.fault = sig == SIGSEGV || sig == SIGBUS ? si->si_addr : nullptr;
    fail(meaning(sig), 0);
    to_scheduler();
}
[[noreturn]] SHIM_SWITCH static void to_fiber(Fiber* f) {
    if (f->started)
        __builtin_longjmp(f->place, 1);
    f->started = true;
    setcontext(&f->uc);
    abort(); // it does not return
}
SHIM_SWITCH static bool resume(Fiber* f) {
    C.cur = f;
    if (!__builtin_setjmp(C.sched))
        to_fiber(f);
    return C.err[0] == 0;
}
extern "C" {
extern char __start_shim_shared[] __attribute__((weak)), __stop_shim_shared[] __attribute__((weak));
}

static void run_block(const std::vector<int>& perm, const std::vector<int>& wperm, bool greedy) {
    while (C.live) {
        bool ran = false;
        for (int w : wperm)
            for (bool again = true; again; again = greedy && again) {
                again = false;
                for (int k = 0; k < 32; ++k) {
                    int i = w * 32 + perm[k];
                    if (i < C.n && C.st[i] == READY) {
                        ran = again = true;
                        if (!resume(&C.f[i]))
                            return;
                    }
                }
            }
        if (ran)
            continue;
        int n =
            snprintf(C.err, sizeof C.err, "deadlock in block %u,%u,%u:", C.bid.x, C.bid.y, C.bid.z);
        for (int i = 0, shown = 0; i < C.n && shown < 8; ++i)
            if (C.st[i] != DONE &&
                (!i || C.st[i - 1] != C.st[i] || C.f[i - 1].line != C.f[i].line)) {
                ++shown;
                n += snprintf(C.err + n, sizeof C.err - n, " thread %d.. at %s", i,
                              C.st[i] == AT_BLOCK ? "__syncthreads" : "a warp operation");
                if (C.f[i].line)
                    n += snprintf(C.err + n, sizeof C.err - n, " line %d", C.f[i].line);
            }
        return;
    }
}
// One stack for each fiber, with an inaccessible page below it. Modules of a process share them: a
// process has a limited number of mappings.
static char* new_stacks() {
    char* p = (char*)mmap(0, kStack * kMaxThreads, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (size_t i = 0; i < kMaxThreads; ++i)
        mprotect(p + kStack * i, kPage, PROT_NONE);
    return p;
}
// order 0: every thread advances one step in turn; 1: the same, highest thread and block first;
// 2: each warp runs as far as it can; 3: the same, highest first; above 3: seed of a random
// warp order, with each warp running as far as it can.
static int launch(void (*body)(void*), void* arg, const unsigned* gb, unsigned smem, unsigned limit,
                  unsigned order) {
    C.grid = dim3(gb[0], gb[1], gb[2]);
    C.block = dim3(gb[3], gb[4], gb[5]);
    C.body = body;
    C.arg = arg;
    C.err[0] = 0;
    C.fault = nullptr;
    uint64_t threads = (uint64_t)gb[3] * gb[4] * gb[5],
             fixed = __stop_shim_shared - __start_shim_shared;
    if (!threads || threads > kMaxThreads)
        return snprintf(C.err, sizeof C.err, "bad block size %llu", (unsigned long long)threads), 1;
    if (fixed + smem > limit)
        return snprintf(C.err, sizeof C.err, "shared memory: %llu static + %u dynamic > %u",
                        (unsigned long long)fixed, smem, limit),
               1;
    C.n = (int)threads;
    if (!C.stacks)
        C.stacks = new_stacks();
    if (!C.f) {
        C.alt = (char*)malloc(kStack);
        C.f = new Fiber[kMaxThreads]();
        getcontext(&C.f[0].uc);
        for (size_t i = 1; i < kMaxThreads; ++i)
            C.f[i].uc = C.f[0].uc;
    }
    for (int i = 0; i < C.n; ++i) {
        Fiber& f = C.f[i];
        f.started = false;
        f.linear = i;
        f.tid = {i % gb[3], i / gb[3] % gb[4], i / gb[3] / gb[4]};
        f.uc.uc_stack.ss_sp = C.stacks + kStack * i + kPage;
        f.uc.uc_stack.ss_size = kStack - kPage;
        f.uc.uc_link = nullptr;
        makecontext(&f.uc, entry, 0);
    }
    int warps = (C.n + 31) / 32;
    bool down = order == 1 || order == 3;
    uint64_t rng = order;
    std::vector<int> perm(32), wperm(warps);
    for (int i = 0; i < 32; ++i)
        perm[i] = down ? 31 - i : i;
    for (int i = 0; i < warps; ++i)
        wperm[i] = down ? warps - 1 - i : i;
    stack_t alt{}, old_alt;
    alt.ss_sp = C.alt;
    alt.ss_size = kStack;
    sigaltstack(&alt, &old_alt);
    struct sigaction sa{}, old[4];
    sa.sa_sigaction = on_signal;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &sa, &old[0]);
    sigaction(SIGBUS, &sa, &old[1]);
    sigaction(SIGFPE, &sa, &old[2]);
    sigaction(SIGILL, &sa, &old[3]);  // from -fsanitize=alignment
    C.dyn = guarded(smem);
    uint64_t blocks = (uint64_t)gb[0] * gb[1] * gb[2];
    for (uint64_t k = 0; k < blocks && !C.err[0]; ++k) {
        uint64_t b = down ? blocks - 1 - k : k;
        C.bid = {unsigned(b % gb[0]), unsigned(b / gb[0] % gb[1]), unsigned(b / gb[0] / gb[1])};
        if (fixed)
            memset(__start_shim_shared, 0xFF, fixed); // poison: NaN in every float format
        memset(C.dyn, 0xFF, smem);
        for (int i = 0; i < C.n; ++i) {
            C.st[i] = READY;
            C.f[i].copies.clear();
        }
        for (int i = 0; i < warps; ++i) {
            C.w[i].waiting = 0;
            C.w[i].live = C.n - i * 32 < 32 ? (1u << (C.n - i * 32)) - 1 : ~0u;
        }
        if (order > 3)
            for (int i = warps - 1; i > 0; --i) {
                rng = rng * 6364136223846793005ull + 1442695040888963407ull;
                std::swap(wperm[i], wperm[(rng >> 33) % (i + 1)]);
            }
        C.live = C.n;
        C.at_block = 0;
        C.vote_or = 0;
        C.vote_and = 1;
        C.vote_count = 0;
        run_block(perm, wperm, order > 1);
    }
    unguard(C.dyn, smem);
    C.dyn = nullptr;
    sigaction(SIGSEGV, &old[0], 0);
    sigaction(SIGBUS, &old[1], 0);
    sigaction(SIGFPE, &old[2], 0);
    sigaction(SIGILL, &old[3], 0);
    sigaltstack(&old_alt, 0);
    return C.err[0] != 0;
}
template <class... A, size_t... I>
void apply(void (*fn)(A...), void** p, std::index_sequence<I...>) {
    fn(*(typename std::remove_cv<typename std::remove_reference<A>::type>::type*)p[I]...);
}
template <class... A>
int run(void (*fn)(A...), void** p, const unsigned* gb, unsigned smem, unsigned limit,
        unsigned order) {
    struct Call {
        void (*fn)(A...);
        void** p;
    } call{fn, p};
    return launch(
        [](void* c) {
            auto* k = (Call*)c;
            apply(k->fn, k->p, std::index_sequence_for<A...>());
        },
        &call, gb, smem, limit, order);
}
template <class... A> int sizes(void (*)(A...), int* out) {
    int s[] = {0, (int)sizeof(A)...};
    int ptr[] = {0, (int)std::is_pointer<A>::value...};
    for (size_t i = 0; i < sizeof...(A); ++i)
        out[i] = ptr[i + 1] ? -1 : s[i + 1];
    return sizeof...(A);
}
template <class T> uint64_t pack(T v) {
    static_assert(sizeof(T) <= 8, "");
    uint64_t u = 0;
    memcpy(&u, &v, sizeof(T));
    return u;
}
template <class T> T unpack(uint64_t u) {
    T v;
    memcpy((void*)&v, &u, sizeof(T));
    return v;
}
inline float bits(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
inline uint32_t bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
inline float half2f(uint16_t h) {
    uint32_t s = (h & 0x8000u) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31)
        return bits(s | 0x7F800000u | m << 13);
    if (!e)
        return bits(s) + (s ? -1.f : 1.f) * ldexpf((float)m, -24);
    return bits(s | (e + 112) << 23 | m << 13);
}
inline uint16_t f2half(float f) {
    uint32_t u = bits(f), s = u >> 16 & 0x8000, a = u & 0x7FFFFFFF;
    if (a > 0x7F800000)
        return s | 0x7FFF;
    if (a >= 0x477FF000)
        return s | 0x7C00;
    if (a < 0x38800000) {
        float r = rintf(bits(a) * 16777216.f);
        return s | (uint16_t)r;
    } // subnormal, ties to even
    a += 0xFFF + (a >> 13 & 1);
    return s | (a - 0x38000000) >> 13;
}
inline uint16_t f2bf(float f) {
    uint32_t u = bits(f);
    return (u & 0x7FFFFFFF) > 0x7F800000 ? 0x7FFF : (u + 0x7FFF + (u >> 16 & 1)) >> 16;
}
} // namespace shim
#define SHIM_EXPORT(sym, ...)                                                                      \
    extern "C" int sym(void** p, const unsigned* gb, unsigned smem, unsigned lim, unsigned o) {    \
        return shim::run(__VA_ARGS__, p, gb, smem, lim, o);                                        \
    }                                                                                              \
    extern "C" int sym##_sizes(int* out) {                                                         \
        return shim::sizes(__VA_ARGS__, out);                                                      \
    }
extern "C" const char* shim_error() {
    return shim::C.err;
}
extern "C" void* shim_fault() {
    return shim::C.fault;
}
extern "C" void* shim_alloc(size_t n) {
    return shim::guarded(n);
}
extern "C" void shim_free(void* p, size_t n) {
    shim::unguard((char*)p, n);
}
extern "C" void* shim_share_stacks(void* stacks) {
    return shim::C.stacks = stacks ? (char*)stacks : shim::new_stacks();
}
extern "C" int shim_static_shared() {
    return int(shim::__stop_shim_shared - shim::__start_shim_shared);
}

#define threadIdx (shim::C.cur->tid)
#define blockIdx (shim::C.bid)
#define blockDim (shim::C.block)
#define gridDim (shim::C.grid)
#define warpSize 32
#define __syncthreads() ((void)shim::block_barrier(__LINE__))
#define __syncthreads_or(p) (shim::block_barrier(__LINE__, p) & 1)
#define __syncthreads_and(p) (shim::block_barrier(__LINE__, p) >> 1 & 1)
#define __syncthreads_count(p) (shim::block_barrier(__LINE__, p) >> 2)
#define SHIM_LANE (shim::C.cur->linear & 31)
static inline void __syncwarp(unsigned mask = ~0u) {
    shim::warp_exchange(mask, 0);
}
template <class T> T __shfl_sync(unsigned m, T v, int src, int w = 32) {
    int l = SHIM_LANE;
    return shim::unpack<T>(shim::warp_exchange(m, shim::pack(v))[(l & ~(w - 1)) + (src & (w - 1))]);
}
template <class T> T __shfl_xor_sync(unsigned m, T v, int x, int w = 32) {
    int l = SHIM_LANE, s = l ^ x;
    if (s / w > l / w)
        s = l;
    return shim::unpack<T>(shim::warp_exchange(m, shim::pack(v))[s & 31]);
}
template <class T> T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32) {
    int l = SHIM_LANE, s = l + (int)d;
    if (s / w != l / w)
        s = l;
    return shim::unpack<T>(shim::warp_exchange(m, shim::pack(v))[s & 31]);
}
template <class T> T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32) {
    int l = SHIM_LANE, s = l - (int)d;
    if (s < (l & ~(w - 1)))
        s = l;
    return shim::unpack<T>(shim::warp_exchange(m, shim::pack(v))[s & 31]);
}
static inline unsigned __ballot_sync(unsigned m, int p) {
    const uint64_t* r = shim::warp_exchange(m, p != 0);
    unsigned b = 0;
    for (int i = 0; i < 32; ++i)
        if (m >> i & 1 && r[i] == 1)
            b |= 1u << i;
    return b;
}
static inline int __any_sync(unsigned m, int p) {
    return __ballot_sync(m, p) != 0;
}
static inline int __all_sync(unsigned m, int p) {
    return __ballot_sync(m, !p) == 0;
}
static inline unsigned __activemask() {
    return shim::C.w[shim::C.cur->linear / 32].live;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}
[[noreturn]] static inline void __trap() {
    fprintf(stderr, "__trap\n");
    abort();
}

template <class T, class U> T atomicAdd(T* p, U v) {
    T o = *p;
    *p = (T)(o + (T)v);
    return o;
}
template <class T, class U> T atomicMax(T* p, U v) {
    T o = *p;
    if ((T)v > o)
        *p = (T)v;
    return o;
}
template <class T, class U> T atomicMin(T* p, U v) {
    T o = *p;
    if ((T)v < o)
        *p = (T)v;
    return o;
}
template <class T, class U> T atomicExch(T* p, U v) {
    T o = *p;
    *p = (T)v;
    return o;
}
template <class T, class U> T atomicOr(T* p, U v) {
    T o = *p;
    *p = o | (T)v;
    return o;
}
template <class T, class U, class V> T atomicCAS(T* p, U c, V v) {
    T o = *p;
    if (o == (T)c)
        *p = (T)v;
    return o;
}

struct __half {
    uint16_t u;
    __half() = default;
    __half(float f) : u(shim::f2half(f)) {}
    operator float() const {
        return shim::half2f(u);
    }
};
struct __nv_bfloat16 {
    uint16_t u;
    __nv_bfloat16() = default;
    __nv_bfloat16(float f) : u(shim::f2bf(f)) {}
    operator float() const {
        return shim::bits((uint32_t)u << 16);
    }
};
typedef __half half;
typedef __nv_bfloat16 nv_bfloat16;
struct alignas(4) __half2 {
    __half x, y;
};
typedef __half2 half2;
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
typedef __nv_bfloat162 nv_bfloat162;
static inline float __half2float(__half h) {
    return h;
}
static inline __half __float2half(float f) {
    return f;
}
static inline __half __float2half_rn(float f) {
    return f;
}
static inline float2 __half22float2(__half2 h) {
    return {h.x, h.y};
}
static inline __half2 __floats2half2_rn(float a, float b) {
    return {a, b};
}
static inline float __bfloat162float(__nv_bfloat16 h) {
    return h;
}
static inline __nv_bfloat16 __float2bfloat16(float f) {
    return f;
}
static inline __nv_bfloat16 __float2bfloat16_rn(float f) {
    return f;
}
static inline float2 __bfloat1622float2(__nv_bfloat162 h) {
    return {h.x, h.y};
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
    return {a, b};
}

// Macros, because glibc declares functions with these names.
#define rsqrtf(x) (1.f / sqrtf(x))
#define rsqrt(x) (1. / sqrt(x))
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __powf(x, y) powf(x, y)
static inline float __fdividef(float a, float b) {
    return a / b;
}
static inline float __frcp_rn(float a) {
    return 1.f / a;
}
static inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
static inline float normcdff(float x) {
    return 0.5f * erfcf(-x * 0.70710678f);
}
static inline float __saturatef(float x) {
    return x < 0 ? 0 : x > 1 ? 1 : x;
}
static inline float __int_as_float(int i) {
    return shim::bits((uint32_t)i);
}
static inline float __uint_as_float(unsigned i) {
    return shim::bits(i);
}
static inline int __float_as_int(float f) {
    return (int)shim::bits(f);
}
static inline unsigned __float_as_uint(float f) {
    return shim::bits(f);
}
static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __clz(int x) {
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}
static inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
    return uint64_t((unsigned __int128)a * b >> 64);
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return unsigned((uint64_t)a * b >> 32);
}
template <class T> T __ldg(const T* p) {
    return *p;
}
template <class T> T __ldcs(const T* p) {
    return *p;
}
template <class T, class U> void __stcs(T* p, U v) {
    *p = v;
}
template <class A, class B> typename std::common_type<A, B>::type min(A a, B b) {
    typedef typename std::common_type<A, B>::type T;
    return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> typename std::common_type<A, B>::type max(A a, B b) {
    typedef typename std::common_type<A, B>::type T;
    return (T)a < (T)b ? (T)b : (T)a;
}
#include "cuda_shim_mma.h"
#pragma GCC pop_options
