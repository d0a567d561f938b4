// The only code that synchronises. Counters only grow: a run adds the same amount to each, so a
// wait compares with a multiple of the epoch, by signed difference, and nothing has to be zeroed
// between runs.
struct rf_control {
  unsigned epoch;     // finished runs
  unsigned abort;     // not zero: every wait ends, and the run is void
  unsigned arrived;   // blocks that are through with this launch
  unsigned reserved;  // counters start on a 16-byte boundary
  unsigned counters[1];
};

#if defined(RF_SIMT)
RF_DEVICE void rf_sync() { __syncthreads(); }

// Publishes everything this block stored: the barrier gathers the block, one thread releases.
RF_DEVICE void rf_signal(rf_control* control, int counter, unsigned amount) {
  rf_sync();
  if (threadIdx.x == 0) rf_add_release(&control->counters[counter], amount);
}

// Some thread of the block goes on when each of these counters has had `full` signals in each of
// `epoch` + 1 runs; an rf_sync gathers the block. Every thread polls one of them, and waits that
// follow each other begin with other warps, so that many take no longer than one.
RF_DEVICE void rf_wait(rf_control* control, int counter, int counters, unsigned full,
                       unsigned epoch, int turn) {
  const int self = (int)(threadIdx.x + turn * 32) % RF_THREADS;
  for (int i = self; i < counters; i += RF_THREADS)
    rf_spin(&control->counters[counter + i], full * (epoch + 1), &control->abort);
}

// The last block out makes the control block ready for the next launch.
RF_DEVICE void rf_leave(rf_control* control, unsigned blocks, unsigned epochs) {
  rf_sync();
  if (threadIdx.x != 0) return;
  if (rf_add_both(&control->arrived, 1) != blocks - 1) return;
  rf_store_relaxed(&control->arrived, 0);
  rf_store_relaxed(&control->epoch, rf_load_relaxed(&control->epoch) + epochs);
}
#else
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
static void rf_sleep_while(unsigned* word, unsigned value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}
static void rf_wake_all(unsigned* word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 0x7fffffff, nullptr, nullptr, 0);
}
#else
#include <sched.h>
static void rf_sleep_while(unsigned*, unsigned) { sched_yield(); }
static void rf_wake_all(unsigned*) {}
#endif
enum { RF_SPINS = 4000 };  // polls before a core goes to sleep: about the length of a short rTask

RF_DEVICE void rf_sync() {}

// Cores that sleep or are about to: whoever changes a word calls the kernel only if there are any.
static unsigned rf_sleepers;

static void rf_advance(unsigned* word, unsigned amount) {
  __atomic_fetch_add(word, amount, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&rf_sleepers, __ATOMIC_SEQ_CST)) rf_wake_all(word);
}

RF_DEVICE void rf_signal(rf_control* control, int counter, unsigned amount) {
  rf_advance(&control->counters[counter], amount);
}

static void rf_await(unsigned* word, unsigned target, const unsigned* abort_word) {
  for (int spins = 0;; ++spins) {
    const unsigned value = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    if ((int)(value - target) >= 0 || __atomic_load_n(abort_word, __ATOMIC_RELAXED)) return;
    if (spins < RF_SPINS) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    } else {
      __atomic_fetch_add(&rf_sleepers, 1u, __ATOMIC_SEQ_CST);
      rf_sleep_while(word, value);  // returns at once if the word has changed
      __atomic_fetch_sub(&rf_sleepers, 1u, __ATOMIC_SEQ_CST);
    }
  }
}

RF_DEVICE void rf_wait(rf_control* control, int counter, int counters, unsigned full,
                       unsigned epoch, int turn) {
  (void)turn;
  for (int i = 0; i < counters; ++i)
    rf_await(&control->counters[counter + i], full * (epoch + 1), &control->abort);
}
#endif
