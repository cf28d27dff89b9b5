// Kernels one after the other, by one call from Python: a step of decoding is some 300 kernels, most
// of which take a few microseconds, as much as it takes Python to call one.
//
// It follows threads.c in the library that a process has once.

#define MM_CHAIN_NS 20000000 // Python gets to handle signals about that often

typedef struct {
    void (*entry)(void *const *buffers, const int64_t *scalars);
    void *const *buffers; // the table; in front of it how many bytes the kernel could not get
    const int64_t *scalars;
    const int64_t *flag; // not 0 if the kernel could not do its work; NULL if it always can
} mm_link;

typedef struct {
    void **place;     // in a table of buffers
    int64_t argument; // the number of the address that belongs there
} mm_filling;

typedef struct {
    const mm_link *links;
    int64_t count;
    const mm_filling *fillings;
    int64_t filling_count;
    void *const *arguments; // addresses that change between calls
} mm_chain;

// Runs kernels from number `first` on. Returns how many are done in all: fewer than there are after
// one that has something to report, or when the time is over.
int64_t mm_run_chain(const mm_chain *chain, int64_t first)
{
    for (int64_t n = 0; first == 0 && n < chain->filling_count; n++)
        *chain->fillings[n].place = chain->arguments[chain->fillings[n].argument];
    const int64_t end = mm_now_ns() + MM_CHAIN_NS;
    for (int64_t n = first; n < chain->count;) {
        const mm_link *const link = &chain->links[n++];
        link->entry(link->buffers, link->scalars);
        const bool reports = ((const int64_t *)link->buffers)[-1] || (link->flag && *link->flag);
        if (reports || mm_now_ns() > end)
            return n;
    }
    return chain->count;
}
