// Tensor cores and asynchronous copies: one function for each instruction of PTX (sm_80 and newer).
// The shim that runs kernels on a host has its own implementation of each, with the same layouts.
//
// Fragments of matrices are distributed over a warp. In registers of two halves each, the lower
// one first, lane l with g = l / 4 and t = l % 4 has
//     left   [16][16]: rows g, g + 8, g, g + 8; columns 2t and 2t + 1 twice, then those plus 8;
//     right  [16][8]:  rows 2t and 2t + 1, then those plus 8, of column g;
// and of float32 sums [16][8] those of row g, columns 2t and 2t + 1, then of row g + 8.
// Source: PTX ISA 8.7, "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix".

// Eight halves: the unit of copies, and a row of the matrices that are loaded.
typedef mm_vector<uint16_t, 8> mm_eight;

#ifndef CUDA_SHIM
MM_INLINE uint32_t mm_shared_address(const void *place)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(place));
}
#endif

// Four 8 x 8 matrices of halves from shared memory: lanes 8m to 8m + 7 point to the rows of matrix m.
// Lane l gets columns 2t and 2t + 1 of row g of each; of the transposed matrix, if TRANSPOSED.
template <bool TRANSPOSED>
MM_INLINE void mm_load_matrices(uint32_t (&to)[4], const mm_eight *row)
{
#ifdef CUDA_SHIM
    shim::load_matrices(to, row, TRANSPOSED);
#else
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(mm_shared_address(row))
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(mm_shared_address(row))
                     : "memory");
#endif
}

// Adds a product of 16 x 16 and 16 x 8 halves to sums; bfloat16 if BFLOAT, else float16.
template <bool BFLOAT>
MM_INLINE void mm_multiply(
    float (&sums)[4], const uint32_t (&left)[4], uint32_t right0, uint32_t right1)
{
#ifdef CUDA_SHIM
    shim::multiply_matrices(sums, left, right0, right1, BFLOAT);
#else
    if constexpr (BFLOAT)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
#endif
}

// Two floats as halves in one register.
template <bool BFLOAT>
MM_INLINE uint32_t mm_pack(float low, float high)
{
#ifdef CUDA_SHIM
    const uint32_t codes[2] = {
        BFLOAT ? mm_store_bfloat16(low) : mm_store_float16(low),
        BFLOAT ? mm_store_bfloat16(high) : mm_store_float16(high)};
    return codes[0] | codes[1] << 16;
#else
    uint32_t codes;
    if constexpr (BFLOAT)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(codes) : "f"(high), "f"(low));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(codes) : "f"(high), "f"(low));
    return codes;
#endif
}

// Starts a copy from global to shared memory that bypasses the L1 cache; zeros instead, if there is
// nothing to copy. It is visible to this thread after mm_wait_for_copies, and to others after a
// subsequent barrier.
MM_INLINE void mm_copy_later(mm_eight *to, const void *from, bool exists)
{
#ifdef CUDA_SHIM
    shim::copy_later(to, from, exists ? 16 : 0);
#else
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(
                     mm_shared_address(to)),
                 "l"(from), "r"(exists ? 16 : 0)
                 : "memory");
#endif
}

MM_INLINE void mm_wait_for_copies()
{
#ifdef CUDA_SHIM
    shim::wait_for_copies();
#else
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// 2^x with an error of 2 ulp; results below FLT_MIN are 0.
MM_INLINE float mm_fast_exp2(float x)
{
#ifdef CUDA_SHIM
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}
