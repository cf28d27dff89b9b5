// Memory accesses that hand-written kernels share. The shim that runs kernels on the host has no PTX;
// there, they are plain accesses.

// What reads ahead into the L2 cache; GPUs before sm_80 do not know it.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define MM_READ_AHEAD ".L2::256B"
#else
#define MM_READ_AHEAD
#endif

// Reads data that no thread reads again: it bypasses the L1 cache.
template <typename T>
MM_INLINE T mm_read_once(const T *from)
{
#ifndef CUDA_SHIM
    union {
        uint32_t word[4];
        T value;
    } both;
    if constexpr (sizeof(T) == 16 && alignof(T) == 16) {
        asm("ld.global.nc.L1::no_allocate" MM_READ_AHEAD ".v4.u32 {%0, %1, %2, %3}, [%4];"
            : "=r"(both.word[0]), "=r"(both.word[1]), "=r"(both.word[2]), "=r"(both.word[3])
            : "l"(from));
        return both.value;
    } else if constexpr (sizeof(T) == 8 && alignof(T) == 8) {
        asm("ld.global.nc.L1::no_allocate" MM_READ_AHEAD ".v2.u32 {%0, %1}, [%2];"
            : "=r"(both.word[0]), "=r"(both.word[1])
            : "l"(from));
        return both.value;
    }
#endif
    return *from;
}

// Reads data that no thread reads again, before any __syncwarp() that follows.
template <typename T>
MM_INLINE T mm_read_now(const T *from)
{
#ifndef CUDA_SHIM
    union {
        uint32_t word[4];
        T value;
    } both;
    if constexpr (sizeof(T) == 16 && alignof(T) == 16) {
        asm volatile("ld.global.L1::no_allocate" MM_READ_AHEAD ".v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(both.word[0]), "=r"(both.word[1]), "=r"(both.word[2]), "=r"(both.word[3])
                     : "l"(from)
                     : "memory");
        return both.value;
    } else if constexpr (sizeof(T) == 8 && alignof(T) == 8) {
        asm volatile("ld.global.L1::no_allocate" MM_READ_AHEAD ".v2.u32 {%0, %1}, [%2];"
                     : "=r"(both.word[0]), "=r"(both.word[1])
                     : "l"(from)
                     : "memory");
        return both.value;
    }
#endif
    return *from;
}

// Prefetches a line into the L2 cache.
MM_INLINE void mm_prefetch(const void *from)
{
#ifndef CUDA_SHIM
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
#endif
}

// The sum over the lanes that differ in the bits from FIRST up to a whole warp, in every lane; always
// the same tree.
template <int FIRST>
MM_INLINE float mm_warp_sum(float x)
{
#pragma unroll
    for (int step = FIRST; step < 32; step *= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
