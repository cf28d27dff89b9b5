// The threads of all kernels of a process: one library, whose `mm_threads_of` all others get as `mm_threads`.
//
// A kernel calls mm_parallel with a task and a number of items. The items are divided evenly; a thread
// that has finished its share steals from the others, in portions of `step` items. The caller works
// too, and waits at the end only for threads that have begun: it does not wait for one that is still
// asleep or preempted. That is why this is not OpenMP, whose loops end when every thread has arrived:
// after a pause, on 2 cores of a virtual machine, a kernel of 0.11 ms took 0.3 to 0.5 ms with it
// (November 2026), mostly with both threads on one core.
//
// Idle threads poll for work for a while before they sleep, and yield to all other threads
// meanwhile: BLAS libraries do the same with their threads.

#include <stdatomic.h>
#ifdef _WIN32
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
#else
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#endif

#define MM_MOST_THREADS 256
#define MM_AWAKE_NS 2000000 // how long an idle thread polls for work: the pause between two tokens
#define MM_LOOKS 64         // polls before it yields

typedef struct {
    _Alignas(128) atomic_llong next; // of this thread's share
    int64_t end;
} mm_share;

// ---- what systems have -------------------------------------------------------------------------

#ifdef _WIN32
typedef SRWLOCK mm_lock;
typedef CONDITION_VARIABLE mm_bell;
#define MM_NEW_LOCK SRWLOCK_INIT
#define MM_NEW_BELL CONDITION_VARIABLE_INIT
#define mm_take(lock) AcquireSRWLockExclusive(lock)
#define mm_release(lock) ReleaseSRWLockExclusive(lock)
#define mm_await(bell, lock) SleepConditionVariableSRW(bell, lock, INFINITE, 0)
#define mm_ring(bell) WakeAllConditionVariable(bell)
#define mm_yield() SwitchToThread()
#else
typedef pthread_mutex_t mm_lock;
typedef pthread_cond_t mm_bell;
#define MM_NEW_LOCK PTHREAD_MUTEX_INITIALIZER
#define MM_NEW_BELL PTHREAD_COND_INITIALIZER
#define mm_take(lock) pthread_mutex_lock(lock)
#define mm_release(lock) pthread_mutex_unlock(lock)
#define mm_await(bell, lock) pthread_cond_wait(bell, lock)
#define mm_ring(bell) pthread_cond_broadcast(bell)
#define mm_yield() sched_yield()
#endif

static int64_t mm_now_ns(void)
{
#ifdef _WIN32
    LARGE_INTEGER count, per_second;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&per_second);
    const int64_t whole = count.QuadPart / per_second.QuadPart;
    const int64_t rest = count.QuadPart % per_second.QuadPart;
    return whole * 1000000000 + rest * 1000000000 / per_second.QuadPart;
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
#endif
}

// ---- the job -----------------------------------------------------------------------------------

// One call at a time uses the threads; a concurrent call runs on its caller alone.
static struct {
    mm_task *task;
    void *const *buffers;
    const int64_t *scalars;
    void *shared;
    int64_t step;
    size_t room;
    int shares;
    _Alignas(128) mm_share share[MM_MOST_THREADS];
    // Twice the number of the call, plus 1 while its items may be taken, in the upper half; in the
    // lower half how many threads have begun.
    _Alignas(128) atomic_ullong state;
    _Alignas(128) atomic_int sleeping;
    atomic_flag taken;
    mm_lock lock;
    mm_bell wake;
    int count; // threads, with the caller; 0 before the first call
} mm_job = {.taken = ATOMIC_FLAG_INIT, .lock = MM_NEW_LOCK, .wake = MM_NEW_BELL};

#define MM_OPEN (1ull << 32)
#define MM_CALL(state) ((state) >> 33)
#define MM_BEGUN(state) ((state) & 0xffffffffull)

MM_INLINE void mm_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// ---- memory of a thread ------------------------------------------------------------------------

typedef struct {
    char *memory;
    size_t nbytes;
} mm_room;

// Called at the end of a thread that has room.
#ifdef _WIN32
static void WINAPI mm_free_room(void *pointer)
#else
static void mm_free_room(void *pointer)
#endif
{
    mm_room *const room = pointer;
    mm_free_memory(room->memory);
    free(room);
}

#ifdef _WIN32
static DWORD mm_room_key;
static INIT_ONCE mm_once = INIT_ONCE_STATIC_INIT;
#define mm_get_room() FlsGetValue(mm_room_key)
#define mm_keep_room(room) FlsSetValue(mm_room_key, room)
#else
static pthread_key_t mm_room_key;
static pthread_once_t mm_once = PTHREAD_ONCE_INIT;
#define mm_get_room() pthread_getspecific(mm_room_key)
#define mm_keep_room(room) (pthread_setspecific(mm_room_key, room) == 0)
#endif

// At least `nbytes` for a task of this thread, aligned to 64 bytes; kept for the next one. NULL if
// there is not so much.
static char *mm_room_of_thread(size_t nbytes)
{
    mm_room *room = mm_get_room();
    if (!room) {
        room = calloc(1, sizeof *room);
        if (!room)
            return NULL;
        if (!mm_keep_room(room)) {
            free(room);
            return NULL;
        }
    }
    if (room->nbytes < nbytes) {
        mm_free_memory(room->memory);
        room->nbytes = 0;
        const size_t wanted = (nbytes + 4095) / 4096 * 4096;
        room->memory = mm_new_memory(wanted);
        if (room->memory)
            room->nbytes = wanted;
    }
    return room->memory;
}

// ---- work --------------------------------------------------------------------------------------

// Takes items, first from its own share, until none are left. A thread that has no room takes none:
// the caller does what others leave, and reports it if that is itself without room.
static void mm_work(int number)
{
    char *const room = mm_job.room ? mm_room_of_thread(mm_job.room) : NULL;
    if (mm_job.room && !room) {
        if (number == 0)
            mm_report_no_memory(mm_job.buffers, mm_job.room);
        return;
    }
    const int64_t step = mm_job.step;
    for (int n = 0; n < mm_job.shares; n++) {
        mm_share *const share = &mm_job.share[(number + n) % mm_job.shares];
        for (;;) {
            if (atomic_load_explicit(&share->next, memory_order_relaxed) >= share->end)
                break;
            const int64_t first = atomic_fetch_add_explicit(&share->next, step, memory_order_relaxed);
            if (first >= share->end)
                break;
            const int64_t end = first + step < share->end ? first + step : share->end;
            mm_job.task(mm_job.buffers, mm_job.scalars, mm_job.shared, room, first, end);
        }
    }
}

static void mm_worker(int number)
{
    unsigned long long seen = 0;
    for (;;) {
        int64_t asleep_at = 0;
        unsigned long long state;
        for (int looks = 0;; looks++) {
            state = atomic_load_explicit(&mm_job.state, memory_order_acquire);
            if ((state & MM_OPEN) && MM_CALL(state) != seen)
                break;
            mm_pause();
            if (looks < MM_LOOKS)
                continue;
            looks = 0;
            const int64_t now = mm_now_ns();
            if (asleep_at == 0)
                asleep_at = now + MM_AWAKE_NS;
            if (now < asleep_at) {
                mm_yield();
                continue;
            }
            mm_take(&mm_job.lock);
            atomic_fetch_add(&mm_job.sleeping, 1);
            for (;;) {
                state = atomic_load(&mm_job.state);
                if ((state & MM_OPEN) && MM_CALL(state) != seen)
                    break;
                mm_await(&mm_job.wake, &mm_job.lock);
            }
            atomic_fetch_sub(&mm_job.sleeping, 1);
            mm_release(&mm_job.lock);
            break;
        }
        // To begin is to be counted while the call is open.
        while ((state & MM_OPEN) &&
               !atomic_compare_exchange_weak_explicit(
                   &mm_job.state, &state, state + 1, memory_order_acq_rel, memory_order_acquire))
            ;
        seen = MM_CALL(state);
        if (state & MM_OPEN) {
            if (number < mm_job.shares)
                mm_work(number);
            atomic_fetch_sub_explicit(&mm_job.state, 1, memory_order_acq_rel);
        }
    }
}

// ---- calls -------------------------------------------------------------------------------------

#ifdef _WIN32

static DWORD WINAPI mm_thread(void *argument)
{
    mm_worker((int)(intptr_t)argument);
    return 0;
}

static bool mm_new_thread(int number)
{
    HANDLE thread = CreateThread(NULL, 0, mm_thread, (void *)(intptr_t)number, 0, NULL);
    return thread && CloseHandle(thread);
}

static BOOL WINAPI mm_prepare(INIT_ONCE *once, void *argument, void **context)
{
    (void)once, (void)argument, (void)context;
    mm_room_key = FlsAlloc(mm_free_room);
    return mm_room_key != FLS_OUT_OF_INDEXES;
}

#define mm_prepare_once() InitOnceExecuteOnce(&mm_once, mm_prepare, NULL, NULL)

#else

static void *mm_thread(void *argument)
{
    mm_worker((int)(intptr_t)argument);
    return NULL;
}

static bool mm_new_thread(int number)
{
    sigset_t all, before;
    sigfillset(&all); // signals are for the threads of the user
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    const bool is_made = !pthread_create(&thread, NULL, mm_thread, (void *)(intptr_t)number);
    if (is_made)
        pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return is_made;
}

static void mm_after_fork(void) // in the child, which has none of the threads
{
    mm_job.count = 0;
    atomic_store(&mm_job.state, 0);
    atomic_store(&mm_job.sleeping, 0);
    atomic_flag_clear(&mm_job.taken);
    pthread_mutex_init(&mm_job.lock, NULL);
    pthread_cond_init(&mm_job.wake, NULL);
}

static void mm_prepare(void)
{
    pthread_key_create(&mm_room_key, mm_free_room);
    pthread_atfork(NULL, NULL, mm_after_fork);
}

#define mm_prepare_once() pthread_once(&mm_once, mm_prepare)

#endif

static void mm_start(int wanted)
{
    mm_job.count = 1;
    while (mm_job.count < wanted && mm_job.count < MM_MOST_THREADS && mm_new_thread(mm_job.count))
        mm_job.count++;
}

static int mm_wanted = 1;

// Sets the number of threads, before the first call.
void mm_set_threads(int64_t count)
{
    mm_wanted = (int)count;
}

static void mm_run_alone(
    mm_task *task, void *const *buffers, const int64_t *scalars, void *shared, int64_t count,
    size_t room)
{
    char *const memory = room ? mm_room_of_thread(room) : NULL;
    if (room && !memory)
        mm_report_no_memory(buffers, room);
    else
        task(buffers, scalars, shared, memory, 0, count);
}

static void mm_run(
    mm_task *task, void *const *buffers, const int64_t *scalars, void *shared, int64_t count,
    int64_t step, size_t room)
{
    mm_prepare_once();
    if (count <= 0)
        return;
    const int64_t portions = (count + step - 1) / step;
    if (portions < 2 || mm_wanted < 2 || atomic_flag_test_and_set(&mm_job.taken)) {
        mm_run_alone(task, buffers, scalars, shared, count, room);
        return;
    }
    if (mm_job.count == 0)
        mm_start(mm_wanted);
    const int shares = (int)(portions < mm_job.count ? portions : mm_job.count);
    mm_job.task = task;
    mm_job.buffers = buffers;
    mm_job.scalars = scalars;
    mm_job.shared = shared;
    mm_job.step = step;
    mm_job.room = room;
    mm_job.shares = shares;
    for (int n = 0; n < shares; n++) {
        atomic_store_explicit(
            &mm_job.share[n].next, portions * n / shares * step, memory_order_relaxed);
        const int64_t end = portions * (n + 1) / shares * step;
        mm_job.share[n].end = end < count ? end : count;
    }
    const unsigned long long before = atomic_load_explicit(&mm_job.state, memory_order_relaxed);
    const unsigned long long call = ((MM_CALL(before) + 1) & 0x7fffffff) << 33;
    atomic_store(&mm_job.state, call | MM_OPEN);
    if (atomic_load(&mm_job.sleeping)) {
        mm_take(&mm_job.lock);
        mm_ring(&mm_job.wake);
        mm_release(&mm_job.lock);
    }
    mm_work(0);
    unsigned long long state = atomic_fetch_and_explicit(
        &mm_job.state, ~MM_OPEN, memory_order_acq_rel);
    for (int looks = 0; MM_BEGUN(state); looks++) {
        mm_pause();
        if (looks >= MM_LOOKS) {
            looks = 0;
            mm_yield();
        }
        state = atomic_load_explicit(&mm_job.state, memory_order_acquire);
    }
    atomic_flag_clear_explicit(&mm_job.taken, memory_order_release);
}

static int64_t mm_count(void)
{
    return mm_wanted < MM_MOST_THREADS ? mm_wanted : MM_MOST_THREADS;
}

const mm_thread_functions mm_threads_of = {mm_run, mm_count};
