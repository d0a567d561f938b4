// The only code that synchronises. Counters only grow: a run adds the same amount to each, so a
// wait compares with a multiple of the epoch, by signed difference, and nothing has to be zeroed
// between runs.
//
// After an abort no block runs another rTask and all leave; whoever started the run zeroes the
// control block before the next one.
struct rf_report {
  int launch, block, lane, entry;
  int event, counter;
  unsigned wanted, seen;  // signals of this run
  int next, source;       // rOperators: which the lane would have run, and which signals; or -1
};

struct rf_control {
  unsigned epoch;      // finished runs
  unsigned abort;      // not zero: every wait ends, and the run is void
  unsigned arrived;    // blocks that are through with this launch
  unsigned came;       // waits that were given up
  unsigned told;       // those of them that have told of it
  rf_report report;    // of the first entry among them
  unsigned unused[1];  // counters start on a 16-byte boundary
  unsigned counters[1];
};

#if defined(RF_SIMT)
RF_DEVICE void rf_sync() { __syncthreads(); }
// The same, and whether any thread of the block says so.
RF_DEVICE bool rf_sync_any(bool mine) { return __syncthreads_or(mine) != 0; }

// Publishes everything this block stored: the barrier gathers the block, one thread releases.
RF_DEVICE void rf_signal(rf_control* control, int counter, unsigned amount) {
  rf_sync();
  if (threadIdx.x == 0) rf_add_release(&control->counters[counter], amount);
}

// Some thread of the block goes on when each of these counters has had `full` signals in each of
// `epoch` + 1 runs; an rf_sync_any gathers the block. Every thread polls one of them, and waits
// that follow each other begin with other warps, so that many take no longer than one. Gives the
// counter that this thread gave up, or -1.
RF_DEVICE int rf_wait(rf_control* control, int counter, int counters, unsigned full, unsigned epoch,
                      int turn) {
  const int self = (int)(threadIdx.x + turn * 32) % RF_THREADS;
  for (int i = counter + self; i < counter + counters; i += RF_THREADS)
    if (!rf_spin(&control->counters[i], full * (epoch + 1), &control->abort)) return i;
  return -1;
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
#include <time.h>
#include <unistd.h>
static void rf_sleep_while(unsigned* word, unsigned value) {
  const struct timespec nap = {0, 1000000};
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, RF_SPIN_CAP ? &nap : nullptr, nullptr, 0);
}
static void rf_wake_all(unsigned* word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 0x7fffffff, nullptr, nullptr, 0);
}
#else
#include <sched.h>
#include <time.h>
static void rf_sleep_while(unsigned*, unsigned) {
  const struct timespec nap = {0, 1000000};
  if (RF_SPIN_CAP) {
    nanosleep(&nap, nullptr);
  } else {
    sched_yield();
  }
}
static void rf_wake_all(unsigned*) {}
#endif
// Polls before a core that waits for another one's rTask goes to sleep: 0.1 ms or so, for to be
// woken takes as long as many an rTask does.
enum : unsigned { RF_SPINS = 2000 };

RF_DEVICE void rf_sync() {}
RF_DEVICE bool rf_sync_any(bool mine) { return mine; }
RF_DEVICE unsigned rf_load_relaxed(const unsigned* word) {
  return __atomic_load_n(word, __ATOMIC_RELAXED);
}
RF_DEVICE void rf_store_relaxed(unsigned* word, unsigned value) {
  __atomic_store_n(word, value, __ATOMIC_RELAXED);
}
RF_DEVICE unsigned rf_add_both(unsigned* word, unsigned amount) {
  return __atomic_fetch_add(word, amount, __ATOMIC_ACQ_REL);
}

// Cores that sleep or are about to: whoever changes a word calls the kernel only if there are any.
static unsigned rf_sleepers;

static void rf_advance(unsigned* word, unsigned amount) {
  __atomic_fetch_add(word, amount, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&rf_sleepers, __ATOMIC_SEQ_CST)) rf_wake_all(word);
}

RF_DEVICE void rf_signal(rf_control* control, int counter, unsigned amount) {
  rf_advance(&control->counters[counter], amount);
}

// False if the abort word ends it, or it has polled `most` times; 0 polls for ever. Sleeps after so
// many `spins`.
static bool rf_await(unsigned* word, unsigned target, const unsigned* abort_word, unsigned most,
                     unsigned spins) {
  for (unsigned polls = 1;; ++polls) {
    const unsigned value = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    if ((int)(value - target) >= 0) return true;
    if (rf_load_relaxed(abort_word) || (most && polls >= most)) return false;
    if (polls < spins) {
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

RF_DEVICE int rf_wait(rf_control* control, int counter, int counters, unsigned full, unsigned epoch,
                      int turn) {
  (void)turn;
  for (int i = counter; i < counter + counters; ++i)
    if (!rf_await(&control->counters[i], full * (epoch + 1), &control->abort, RF_SPIN_CAP,
                  RF_SPINS))
      return i;
  return -1;
}
#endif
