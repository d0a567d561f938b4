// The three worlds this text is compiled in, and the few words that differ between them.
//   nvcc or NVRTC        one GPU thread runs this text, RF_SIMT is defined
//   -DRF_EMULATE         the same, on a CPU: an emulator supplies threads, barriers and counters
//   any C++17 compiler   one core runs a whole block, and the tile primitives are vectorised loops
#if defined(__CUDACC__) || defined(RF_EMULATE)
#define RF_SIMT 1
#endif

#if defined(__CUDACC__)
#if defined(__NVCC_DIAG_PRAGMA_SUPPORT__) || defined(__CUDACC_RTC__)
#pragma nv_diag_suppress 177  // a program uses only part of the library
#pragma nv_diag_suppress 186  // templates ask unsigned numbers too whether they are negative
#endif
#define RF_DEVICE static __device__ __forceinline__
#define RF_MEMBER __device__ __forceinline__
#define RF_BODY static __device__ __noinline__
#define RF_TABLE static __device__ const
#define RF_LAMBDA [=]
#define RF_UNROLL _Pragma("unroll")
#define RF_PRAGMA(text) _Pragma(#text)
#define RF_UNROLL_BY(times) RF_PRAGMA(unroll times)
#define RF_NO_UNROLL _Pragma("unroll 1")
#define RF_INFINITY __int_as_float(0x7f800000)
#define RF_NAN __int_as_float(0x7fc00000)
// All tensors lie in global memory. Told so, the compiler emits global accesses and not generic
// ones, which find out at every access. It does not promise that nothing writes there.
#define RF_GLOBAL(pointer) __builtin_assume(__isGlobal(pointer))
// Every tensor begins where an access of 16 bytes can. The compiler forgets it if it is only told,
// of a global address at least; it has to see it.
#define RF_ALIGNED(pointer) \
  ((char*)__cvta_global_to_generic(__cvta_generic_to_global(pointer) & ~(rf_size)15))
#else
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
// GCC 12 keeps stores to an array back past conditional loads that it made one masked load of, and
// sums come out wrong: sums[j] += wanted[r] == row ? x[r] : 0.
#pragma GCC optimize("no-move-loop-stores")
#endif
#define RF_DEVICE static inline __attribute__((always_inline))
#define RF_MEMBER inline __attribute__((always_inline))
#define RF_BODY static __attribute__((noinline))
#define RF_TABLE static const
#define RF_LAMBDA [=]
#define RF_UNROLL _Pragma("GCC unroll 16")
#define RF_UNROLL_BY(times)
#define RF_NO_UNROLL _Pragma("GCC unroll 1")
#define RF_INFINITY __builtin_inff()
#define RF_NAN __builtin_nanf("")
#define RF_GLOBAL(pointer) ((void)0)
#define RF_ALIGNED(pointer) (pointer)
#endif

typedef unsigned long long rf_size;

// Polls before a wait gives up and the run with it; 0 waits for ever. A debug build takes some
// seconds: a poll is near a microsecond on a GPU, a millisecond on a core that sleeps in between,
// and one round of all blocks in the emulator.
#if !defined(RF_SPIN_CAP)
#if !defined(RF_DEBUG)
#define RF_SPIN_CAP 0u
#elif defined(__CUDACC__)
#define RF_SPIN_CAP (1u << 23)
#elif defined(RF_EMULATE)
#define RF_SPIN_CAP (1u << 12)
#else
#define RF_SPIN_CAP (1u << 13)
#endif
#endif

// Builds for tuning: one that takes down how long each launch is, and one of empty launches.
#if !defined(RF_TIMING)
#define RF_TIMING 0
#endif
#if !defined(RF_EMPTY)
#define RF_EMPTY 0
#endif

#if defined(__CUDACC__)
RF_DEVICE unsigned rf_load_relaxed(const unsigned* word) {
  unsigned value;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
  return value;
}
RF_DEVICE void rf_store_relaxed(unsigned* word, unsigned value) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
RF_DEVICE void rf_add_release(unsigned* word, unsigned amount) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(word), "r"(amount) : "memory");
}
RF_DEVICE unsigned rf_add_both(unsigned* word, unsigned amount) {
  unsigned old;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
               : "=r"(old)
               : "l"(word), "r"(amount)
               : "memory");
  return old;
}
// Relaxed polls and one acquire fence at the end: an acquiring load would empty L1 at every poll.
RF_DEVICE bool rf_spin(const unsigned* word, unsigned target, const unsigned* abort_word) {
  for (unsigned polls = 1; (int)(rf_load_relaxed(word) - target) < 0; ++polls) {
    if (rf_load_relaxed(abort_word) || (RF_SPIN_CAP && polls >= RF_SPIN_CAP)) return false;
    __nanosleep(20);
  }
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
  return true;
}
RF_DEVICE void rf_prefetch_line(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}
RF_DEVICE char* rf_arena() {
  extern __shared__ __align__(128) char rf_shared[];
  return rf_shared;
}
#elif defined(RF_EMULATE)
RF_DEVICE unsigned rf_load_relaxed(const unsigned* word) { return rf_emulator_load(word); }
RF_DEVICE void rf_store_relaxed(unsigned* word, unsigned value) { rf_emulator_store(word, value); }
RF_DEVICE void rf_add_release(unsigned* word, unsigned amount) { rf_emulator_signal(word, amount); }
RF_DEVICE unsigned rf_add_both(unsigned* word, unsigned amount) {
  return rf_emulator_add(word, amount);
}
RF_DEVICE bool rf_spin(const unsigned* word, unsigned target, const unsigned* abort_word) {
  return rf_emulator_wait(word, target, abort_word, RF_SPIN_CAP);
}
RF_DEVICE void rf_prefetch_line(const void*) {}
RF_DEVICE char* rf_arena() { return rf_emulator_arena(); }
#endif
