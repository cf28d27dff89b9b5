// The part of the shim that emulates tensor cores and asynchronous copies; see cuda_shim.h and
// kernels/cuda/mma.h. Layouts are written from the formulas of the PTX ISA; tests/kernels/test_mma.py
// compares them with its figures.
#pragma once

namespace shim {
// Calls work(all) with the pointers that the 32 lanes of a warp gave; the lanes stay until all are
// done, so that what the pointers lead to does not change in between.
template <class T, class F> void with_all_lanes(const T* own, F work) {
    T const* all[32];
    const uint64_t* sent = warp_exchange(~0u, (uint64_t)own);
    for (int i = 0; i < 32; ++i)
        if (sent[i] == ~0ull)
            fail("a warp operation that needs all 32 lanes", 0);
        else
            all[i] = (const T*)sent[i];
    if (!C.err[0])
        work(all);
    warp_exchange(~0u, 0);
}
// ldmatrix.sync.aligned.m8n8.x4{.trans}.shared.b16
inline void load_matrices(uint32_t* to, const void* row, bool transposed) {
    if ((uintptr_t)row % 16)
        fail("ldmatrix: the address of a row is not a multiple of 16", 0);
    int lane = C.cur->linear & 31;
    with_all_lanes((const uint16_t*)row, [&](const uint16_t* const* rows) {
        for (int m = 0; m < 4; ++m) {
            uint32_t half[2];
            for (int h = 0; h < 2; ++h) {
                int r = lane / 4, c = lane % 4 * 2 + h;
                half[h] = transposed ? rows[8 * m + c][r] : rows[8 * m + r][c];
            }
            to[m] = half[0] | half[1] << 16;
        }
    });
}
// mma.sync.aligned.m16n8k16.row.col.f32.<f16 or bf16>.<f16 or bf16>.f32. A sum is rounded once; that
// of a GPU is rounded more often.
inline void multiply_matrices(float* sums, const uint32_t* left, uint32_t right0, uint32_t right1,
                              bool bfloat) {
    struct Lane {
        uint32_t a[4], b[2];
    } own = {{left[0], left[1], left[2], left[3]}, {right0, right1}};
    auto number = [bfloat](const uint32_t* registers, int i) {
        uint16_t code = uint16_t(registers[i / 2] >> i % 2 * 16);
        return bfloat ? bits((uint32_t)code << 16) : half2f(code);
    };
    int lane = C.cur->linear & 31;
    with_all_lanes(&own, [&](const Lane* const* lanes) {
        for (int i = 0; i < 4; ++i) { // row of ci: groupID, + 8 for i >= 2; column: 2t + (i & 1)
            int row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
            double sum = sums[i];
            for (int k = 0; k < 16; ++k) {
                // a: rows + 8 in a2, a3, a6, a7; columns + 8 from a4 on. b: rows + 8 from b2 on.
                int ai = (k & 1) + (row < 8 ? 0 : 2) + (k < 8 ? 0 : 4);
                int bi = (k & 1) + (k < 8 ? 0 : 2), t = k % 8 / 2;
                sum += (double)number(lanes[row % 8 * 4 + t]->a, ai)
                       * number(lanes[column * 4 + t]->b, bi);
            }
            sums[i] = (float)sum;
        }
    });
}
// cp.async.cg.shared.global, 16 bytes, of which `nbytes` are read and the others 0
inline void copy_later(void* to, const void* from, unsigned nbytes) {
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16)
        fail("cp.async: an address is not a multiple of 16", 0);
    C.cur->copies.push_back({to, from, nbytes});
}
// cp.async.wait_all: those of this thread
inline void wait_for_copies() {
    for (const Copy& copy : C.cur->copies) {
        memset(copy.to, 0, 16);
        memcpy(copy.to, copy.from, copy.nbytes);
    }
    C.cur->copies.clear();
}
} // namespace shim
