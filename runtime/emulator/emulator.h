// The CUDA names of an emitted file, for a C++ compiler on a CPU.
//
// Injected with `-include emulator.h -DRF_EMULATE` when the SIMT side of an emitted file is
// compiled as C++. Every CUDA thread is a stackful fiber (fibers.cpp), so that barriers, shuffles
// and spin-waits really happen. In race builds the emitted file is compiled with -fsanitize=thread,
// and race.cpp receives every access that it makes.
//
// What always holds: this header defines no name of its own without the prefix rf_emulator_, and
// nothing here reads or writes memory that the race detector would then have to forgive.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Order of lanes, warps and blocks wherever more than one could run.
enum rf_emulator_order {
  rf_emulator_ascending = 0,
  rf_emulator_descending = 1,
  rf_emulator_random = 2,
};

enum rf_emulator_status {
  rf_emulator_ok = 0,
  rf_emulator_deadlock = 1,
  rf_emulator_livelock = 2,
  rf_emulator_misuse = 3,  // a bad configuration, a wrong mask, a stack overflow
};

struct rf_emulator_config {
  int blocks;
  int threads;  // of one block
  int arena_bytes;
  int order;  // rf_emulator_order
  unsigned seed;
  int poison;        // fill the arenas with 0xff bytes at start: NaN for every float type
  int spin_seconds;  // how long a launch may do nothing but spin
};

// What the running fiber can ask about itself.
struct rf_emulator_thread {
  unsigned thread_index;
  unsigned block_index;
  unsigned block_size;
  unsigned grid_size;
  char* arena;
};

struct rf_emulator_index {
  unsigned x;
};

// A collective operation of a warp: gets one argument for each lane in the mask.
typedef void (*rf_emulator_collective)(void* const* arguments, unsigned mask);

// A copy into the arena that the thread does not wait for: `given` of its bytes, then zeros.
struct rf_emulator_copy {
  char* to;
  const char* from;
  unsigned bytes, given;
};

// What a lane brings to products of matrices, in the order of CUDA's mma.sync.
struct rf_emulator_product {
  int factors;  // as rf_factors
  int rows, columns;
  void* sums;         // [rows][columns][4]: int for bytes, otherwise float
  const unsigned* a;  // [rows][4]
  const unsigned* b;  // [columns][2]
};

// What a lane brings to a load of matrices, and what it gets.
struct rf_emulator_matrix_row {
  bool transposed;
  unsigned words[4];
  unsigned parts[4];
};

struct rf_emulator_shuffle {
  uint64_t value;
  unsigned source_lane;
  uint64_t result;
};

extern "C" {
// The running fiber. One OS thread runs all fibers of a launch, so this needs no thread-local.
extern rf_emulator_thread* rf_emulator_current;

int rf_emulator_run(const rf_emulator_config* config, void (*body)(void*), void* closure);
void rf_emulator_block_barrier();
// The same, and whether the predicate holds for any thread of the block.
bool rf_emulator_block_any(bool predicate);
void rf_emulator_warp_collective(unsigned mask, void* argument, rf_emulator_collective perform);
void rf_emulator_do_nothing(void* const* arguments, unsigned mask);
void rf_emulator_do_shuffle(void* const* arguments, unsigned mask);

// Adds with release order. Device scope.
void rf_emulator_signal(unsigned* counter, unsigned amount);

// Spins until (int)(*counter - target) >= 0, with acquire order; false once *abort_word is not 0,
// or after this many polls if there is a limit.
bool rf_emulator_wait(const unsigned* counter, unsigned target, const unsigned* abort_word,
                      unsigned most_polls = 0);

// Adds with acquire and release order; returns the value before.
unsigned rf_emulator_add(unsigned* word, unsigned amount);

// Relaxed, and never a race. A load also lets the other fibers run, so that loops around it end.
unsigned rf_emulator_load(const unsigned* word);
void rf_emulator_store(unsigned* word, unsigned value);

// Takes note of a copy that is made only when it is waited for; false if it is to be made now.
// Either may happen, and the order of the launch decides.
bool rf_emulator_copy_is_put_off(const rf_emulator_copy* copy);
void rf_emulator_copies_commit();
// The next copy that has to be made so that no more than this many groups are left; false if there
// is none.
bool rf_emulator_next_copy(unsigned groups, rf_emulator_copy* copy);

void rf_emulator_do_load_matrices(void* const* arguments, unsigned mask);
void rf_emulator_do_multiply(void* const* arguments, unsigned mask);

// What went wrong in the last launch; empty after a good one.
__attribute__((visibility("default"))) const char* rf_emulator_message();
}

#ifdef __SANITIZE_THREAD__
// Inlined into an instrumented function, reads of the emulator's own state would be recorded.
#define RF_EMULATOR_OWN static __attribute__((noinline, unused, no_sanitize("thread")))
// What these access is not instrumented: the detector has versions that tell it.
extern "C" {
void* memcpy(void* to, const void* from, size_t bytes) noexcept __asm__("rf_emulator_memcpy");
void* memmove(void* to, const void* from, size_t bytes) noexcept __asm__("rf_emulator_memmove");
void* memset(void* to, int value, size_t bytes) noexcept __asm__("rf_emulator_memset");
void rf_emulator_announce_write(void* address, size_t bytes);
}
#else
#define RF_EMULATOR_OWN static inline __attribute__((always_inline, unused))
#endif

RF_EMULATOR_OWN rf_emulator_index rf_emulator_thread_index() {
  return {rf_emulator_current->thread_index};
}
RF_EMULATOR_OWN rf_emulator_index rf_emulator_block_index() {
  return {rf_emulator_current->block_index};
}
RF_EMULATOR_OWN rf_emulator_index rf_emulator_block_size() {
  return {rf_emulator_current->block_size};
}
RF_EMULATOR_OWN rf_emulator_index rf_emulator_grid_size() {
  return {rf_emulator_current->grid_size};
}
RF_EMULATOR_OWN char* rf_emulator_arena() { return rf_emulator_current->arena; }
RF_EMULATOR_OWN unsigned rf_emulator_lane() { return rf_emulator_current->thread_index % 32; }

template <class F>
int rf_emulator_launch(const rf_emulator_config* config, F body) {
  return rf_emulator_run(config, [](void* closure) { (*static_cast<F*>(closure))(); }, &body);
}

// The runtime half (fibers.cpp, race.cpp) wants the declarations alone.
#ifndef RF_EMULATOR_RUNTIME

#define threadIdx (rf_emulator_thread_index())
#define blockIdx (rf_emulator_block_index())
#define blockDim (rf_emulator_block_size())
#define gridDim (rf_emulator_grid_size())

static inline void __syncthreads() { rf_emulator_block_barrier(); }
static inline int __syncthreads_or(int predicate) { return rf_emulator_block_any(predicate != 0); }

static inline void __syncwarp(unsigned mask = ~0u) {
  rf_emulator_warp_collective(mask, nullptr, rf_emulator_do_nothing);
}

template <class T>
static inline T rf_emulator_take_from(unsigned mask, T value, unsigned source_lane) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
  rf_emulator_shuffle shuffle{0, source_lane, 0};
  __builtin_memcpy(&shuffle.value, &value, sizeof(T));
  rf_emulator_warp_collective(mask, &shuffle, rf_emulator_do_shuffle);
  __builtin_memcpy(&value, &shuffle.result, sizeof(T));
  return value;
}

template <class T>
static inline T __shfl_sync(unsigned mask, T value, int source) {
  return rf_emulator_take_from(mask, value, static_cast<unsigned>(source) % 32);
}

template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lane_bits) {
  return rf_emulator_take_from(mask, value, rf_emulator_lane() ^ (lane_bits & 31));
}

// All 32 lanes take part: each gets what its neighbours in ever larger groups have gathered.
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned votes = predicate ? 1u << rf_emulator_lane() : 0u;
  for (int step = 1; step < 32; step *= 2) votes |= __shfl_xor_sync(mask, votes, step);
  return votes;
}

#ifndef __SANITIZE_THREAD__
static inline void rf_emulator_announce_write(void*, size_t) {}
#endif

// cp.async, ldmatrix and mma.sync. What they read and write in memory, they do here, where the race
// detector sees it.
static inline void rf_emulator_make_copy(const rf_emulator_copy& copy) {
  if (copy.given) memcpy(copy.to, copy.from, copy.given);
  if (copy.given < copy.bytes) memset(copy.to + copy.given, 0, copy.bytes - copy.given);
}

static inline void rf_emulator_copy_async(void* to, const void* from, unsigned bytes,
                                          bool present) {
  const rf_emulator_copy copy{static_cast<char*>(to), static_cast<const char*>(from), bytes,
                              present ? bytes : 0};
  if (rf_emulator_copy_is_put_off(&copy)) {
    rf_emulator_announce_write(to, bytes);
  } else {
    rf_emulator_make_copy(copy);
  }
}

static inline void rf_emulator_copies_wait(unsigned groups) {
  rf_emulator_copy copy;
  while (rf_emulator_next_copy(groups, &copy)) rf_emulator_make_copy(copy);
}

static inline void rf_emulator_load_matrices(unsigned* parts, const void* row, bool transposed) {
  rf_emulator_matrix_row own{transposed, {}, {}};
  for (int i = 0; i < 4; ++i) own.words[i] = static_cast<const unsigned*>(row)[i];
  rf_emulator_warp_collective(~0u, &own, rf_emulator_do_load_matrices);
  for (int i = 0; i < 4; ++i) parts[i] = own.parts[i];
}

static inline void rf_emulator_multiply(int factors, int rows, int columns, void* sums,
                                        const unsigned* a, const unsigned* b) {
  rf_emulator_product own{factors, rows, columns, sums, a, b};
  rf_emulator_warp_collective(~0u, &own, rf_emulator_do_multiply);
}

// Lanes without a partner keep their own value, as on the device.
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta) {
  const unsigned lane = rf_emulator_lane();
  return rf_emulator_take_from(mask, value, delta < 32 - lane ? lane + delta : lane);
}

#else  // RF_EMULATOR_RUNTIME

// What fibers.cpp tells race.cpp. Without the detector all of it compiles to nothing.
namespace rf_emulator {

struct Memory {
  const char* arenas;  // of all blocks, one after the other
  size_t arena_stride;
  const char* stacks;
  size_t stacks_bytes;
};

// What the copies that are put off need to know.
void copies_begin(const rf_emulator_config& config);

#ifdef RF_EMULATOR_RACE
void race_begin(const rf_emulator_config& config, const Memory& memory);
void race_end();
void race_enter(const rf_emulator_thread& thread);  // this fiber makes the accesses from now on
void race_block_barrier(unsigned block);
void race_warp_rendezvous(unsigned block, unsigned warp, unsigned lanes);
void race_release(const unsigned* counter, unsigned before, unsigned after);
void race_acquire(const unsigned* counter, unsigned target);
void race_acquire_all(const unsigned* counter);
void race_overwrite(const unsigned* counter);
#else
inline void race_begin(const rf_emulator_config&, const Memory&) {}
inline void race_end() {}
inline void race_enter(const rf_emulator_thread&) {}
inline void race_block_barrier(unsigned) {}
inline void race_warp_rendezvous(unsigned, unsigned, unsigned) {}
inline void race_release(const unsigned*, unsigned, unsigned) {}
inline void race_acquire(const unsigned*, unsigned) {}
inline void race_acquire_all(const unsigned*) {}
inline void race_overwrite(const unsigned*) {}
#endif

}  // namespace rf_emulator

#endif  // RF_EMULATOR_RUNTIME
