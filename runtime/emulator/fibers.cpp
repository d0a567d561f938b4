// The runtime half of the emulator: fibers, barriers, warp collectives, counters and the scheduler.
//
// One OS thread runs all fibers of a launch. A block keeps the processor until each of its fibers
// waits (at a barrier, in a collective) or spins (in rf_emulator_wait); then the next block has its
// turn. Which block, warp and lane comes next is the configured order. Nothing pre-empts a fiber
// elsewhere, so a launch is repeatable to the bit for one order and seed.
#define RF_EMULATOR_RUNTIME
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <string>
#include <vector>

#include "emulator.h"

rf_emulator_thread* rf_emulator_current = nullptr;

// Saves the callee-saved registers on the running stack, its pointer in *save, and continues with
// the stack `load`, which an earlier switch or prepare_stack has left in the same layout.
extern "C" void rf_emulator_switch(void** save, void* load);

namespace rf_emulator {

// Context switch, one for each architecture.

#if defined(__x86_64__)

// The jump instead of a return spares the misprediction: the return stack of the processor belongs
// to another fiber.
asm(R"(
.text
.globl rf_emulator_switch
.hidden rf_emulator_switch
.type rf_emulator_switch, @function
rf_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size rf_emulator_switch, .-rf_emulator_switch
)");

static void* prepare_stack(char* top, void (*entry)()) {
  constexpr int saved_registers = 6;
  auto* frame = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{63});
  *--frame = nullptr;  // the return address of `entry`, which never returns; also its alignment
  *--frame = reinterpret_cast<void*>(entry);
  for (int i = 0; i < saved_registers; ++i) *--frame = nullptr;
  return frame;
}

#elif defined(__aarch64__)

asm(R"(
.text
.globl rf_emulator_switch
.hidden rf_emulator_switch
.type rf_emulator_switch, @function
rf_emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  br x30
.size rf_emulator_switch, .-rf_emulator_switch
)");

static void* prepare_stack(char* top, void (*entry)()) {
  constexpr size_t frame_bytes = 160;
  constexpr int return_address = 11;  // x30, in words
  char* aligned = reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{63});
  auto* frame = reinterpret_cast<void**>(aligned - frame_bytes);
  memset(frame, 0, frame_bytes);
  frame[return_address] = reinterpret_cast<void*>(entry);
  return frame;
}

#else
#error "the emulator has no context switch for this architecture"
#endif

constexpr unsigned kLanes = 32;
constexpr int kMaxBlocks = 1056;
constexpr int kMaxThreads = 1024;
constexpr size_t kArenaAlignment = 1024;

// A distance that is no multiple of the page spreads the tops of the stacks over the sets of the
// cache. It also puts the canary at the low end of a stack into the page where the stack below has
// its top, so that canaries commit no pages of their own.
constexpr size_t kStackBytes = 32 * 1024;
constexpr size_t kStackStride = kStackBytes + 5 * 64;
constexpr size_t kStacksMargin = 64 * 1024;  // below the first, so that its overflow can be told
constexpr size_t kStackReserve = 512;  // less than this left at a switch counts as an overflow
constexpr uint64_t kCanary = 0x0f1be25ac0ffee11u;

struct Warp;

struct Fiber : rf_emulator_thread {
  void* stack_pointer;
  char* stack_low;
  Warp* warp;
  unsigned lane;
  const unsigned* awaited_counter;  // for the message about a livelock
  unsigned awaited_target;
};

struct Block;

// Sets of lanes are bit masks. An alive lane is in exactly one of: ready, spinning, at the block's
// barrier, or arrived in a collective.
struct Warp {
  Block* block;
  Fiber* fibers;
  unsigned index;
  unsigned alive, ready, spinning, at_barrier, arrived;
  void* arguments[kLanes];
  unsigned masks[kLanes];
  rf_emulator_collective operations[kLanes];
};

class Random {
 public:
  Random() = default;
  explicit Random(unsigned seed) : state_(seed * 2654435761u | 1) {}
  unsigned next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    state_ ^= state_ << 5;
    return state_;
  }

 private:
  unsigned state_ = 1;
};

struct Block {
  unsigned index;
  unsigned ready_warps, spinning_warps;  // which warps have such lanes
  int threads, alive, at_barrier;
  int votes, ayes;  // at the barrier that is coming together
  bool any;         // what the last one that votes has found
  Random random;
  std::vector<Warp> warps;
  std::vector<Fiber> fibers;
};

struct Launch {
  rf_emulator_config config;
  void (*body)(void*);
  void* closure;
  void* scheduler_stack_pointer;
  int status;
  uint64_t events;  // steps forward: while it stands still, there is nothing but spinning
  std::vector<Block> blocks;
};

static Launch* launch = nullptr;
static std::string message;

// Records why the launch ends. The first reason stays.
__attribute__((format(printf, 2, 3))) static void fail(rf_emulator_status status,
                                                       const char* format, ...) {
  if (launch->status != rf_emulator_ok) return;
  launch->status = status;
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  message = text;
}

// Which fiber is next.

static unsigned choose_bit(unsigned set, Block& block) {
  switch (launch->config.order) {
    case rf_emulator_ascending:
      return __builtin_ctz(set);
    case rf_emulator_descending:
      return 31 - __builtin_clz(set);
    default: {
      const unsigned start = block.random.next() % 32;
      const unsigned rotated = set >> start | set << ((32 - start) % 32);
      return (__builtin_ctz(rotated) + start) % 32;
    }
  }
}

static void set_ready(Warp& warp, unsigned lanes) {
  warp.ready |= lanes;
  if (warp.ready) warp.block->ready_warps |= 1u << warp.index;
}

static void clear_ready(Warp& warp, unsigned lanes) {
  warp.ready &= ~lanes;
  if (!warp.ready) warp.block->ready_warps &= ~(1u << warp.index);
}

static Fiber* choose_fiber(Block& block) {
  if (!block.ready_warps) return nullptr;
  Warp& warp = block.warps[choose_bit(block.ready_warps, block)];
  return &warp.fibers[choose_bit(warp.ready, block)];
}

// Moving between fibers.

static void resume(void** save, Fiber& next) {
  rf_emulator_current = &next;
  race_enter(next);
  if (save != &next.stack_pointer) rf_emulator_switch(save, next.stack_pointer);
}

static void return_to_scheduler(Fiber& fiber) {
  rf_emulator_switch(&fiber.stack_pointer, launch->scheduler_stack_pointer);
}

static void check_stack(const Fiber& fiber) {
  const char* here = static_cast<const char*>(__builtin_frame_address(0));
  const bool deep = here < fiber.stack_low + kStackReserve;
  if (!deep && *reinterpret_cast<const uint64_t*>(fiber.stack_low) == kCanary) return;
  fail(rf_emulator_misuse, "stack overflow: block %u thread %u used more than %zu bytes",
       fiber.block_index, fiber.thread_index, kStackBytes);
}

// Lets whichever fiber of the block is next run; comes back when `fiber` is chosen again.
static void yield(Fiber& fiber) {
  if (static_cast<const char*>(__builtin_frame_address(0)) < fiber.stack_low + kStackReserve) {
    check_stack(fiber);
  }
  if (launch->status != rf_emulator_ok) return_to_scheduler(fiber);  // for good
  if (Fiber* next = choose_fiber(*fiber.warp->block)) {
    resume(&fiber.stack_pointer, *next);
  } else {
    return_to_scheduler(fiber);
  }
}

static Fiber& current_fiber() { return *static_cast<Fiber*>(rf_emulator_current); }

static void spin(Fiber& fiber) {
  Warp& warp = *fiber.warp;
  const unsigned bit = 1u << fiber.lane;
  clear_ready(warp, bit);
  warp.spinning |= bit;
  warp.block->spinning_warps |= 1u << warp.index;
  yield(fiber);
}

static void wake_spinners(Block& block) {
  for (unsigned warps = block.spinning_warps; warps; warps &= warps - 1) {
    Warp& warp = block.warps[__builtin_ctz(warps)];
    set_ready(warp, warp.spinning);
    warp.spinning = 0;
  }
  block.spinning_warps = 0;
}

// The block's barrier. It waits for every thread of the block, returned ones included: CUDA calls a
// barrier that not all threads reach undefined, whatever one generation of devices makes of it.
static void block_barrier(Fiber& fiber) {
  Warp& warp = *fiber.warp;
  Block& block = *warp.block;
  const unsigned bit = 1u << fiber.lane;
  clear_ready(warp, bit);
  warp.at_barrier |= bit;
  if (++block.at_barrier == block.threads) {
    block.at_barrier = 0;
    if (block.votes != 0 && block.votes != block.threads) {
      fail(rf_emulator_misuse, "block %u: only %d of %d threads vote at a barrier", block.index,
           block.votes, block.threads);
    }
    block.any = block.ayes > 0;
    block.votes = block.ayes = 0;
    ++launch->events;
    race_block_barrier(block.index);
    for (Warp& each : block.warps) {
      set_ready(each, each.at_barrier);
      each.at_barrier = 0;
    }
  }
  yield(fiber);
}

// Warp collectives.

static void check_agreement(const Warp& warp, unsigned lanes, unsigned first) {
  for (unsigned rest = lanes; rest; rest &= rest - 1) {
    const unsigned lane = __builtin_ctz(rest);
    if (warp.masks[lane] == warp.masks[first] && warp.operations[lane] == warp.operations[first]) {
      continue;
    }
    fail(rf_emulator_misuse,
         "block %u warp %u: lanes %u and %u meet in different warp operations (masks %08x, %08x)",
         warp.block->index, warp.index, first, lane, warp.masks[first], warp.masks[lane]);
    return;
  }
}

// Performs the collective that `lane` waits in once all lanes of its mask that live are there.
static void try_collective(Warp& warp, unsigned lane) {
  const unsigned lanes = warp.masks[lane] & warp.alive;
  if ((warp.arrived & lanes) != lanes) return;
  check_agreement(warp, lanes, lane);
  if (launch->status != rf_emulator_ok) return;
  warp.operations[lane](warp.arguments, lanes);
  warp.arrived &= ~lanes;
  set_ready(warp, lanes);
  ++launch->events;
  race_warp_rendezvous(warp.block->index, warp.index, lanes);
}

static void warp_collective(Fiber& fiber, unsigned mask, void* argument,
                            rf_emulator_collective perform) {
  Warp& warp = *fiber.warp;
  const unsigned bit = 1u << fiber.lane;
  if (!(mask & bit)) {
    fail(rf_emulator_misuse, "block %u thread %u: its warp operation's mask %08x lacks lane %u",
         fiber.block_index, fiber.thread_index, mask, fiber.lane);
  }
  warp.arguments[fiber.lane] = argument;
  warp.masks[fiber.lane] = mask;
  warp.operations[fiber.lane] = perform;
  warp.arrived |= bit;
  clear_ready(warp, bit);
  try_collective(warp, fiber.lane);
  yield(fiber);
}

// The life of a fiber.

static void finish(Fiber& fiber) {
  Warp& warp = *fiber.warp;
  const unsigned bit = 1u << fiber.lane;
  check_stack(fiber);
  clear_ready(warp, bit);
  warp.alive &= ~bit;
  --warp.block->alive;
  ++launch->events;
  while (warp.arrived) {  // the others may have waited for this lane alone
    const unsigned before = warp.arrived;
    for (unsigned rest = before; rest; rest &= rest - 1) {
      const unsigned lane = __builtin_ctz(rest);
      if (warp.arrived & 1u << lane) try_collective(warp, lane);
    }
    if (warp.arrived == before) break;
  }
  yield(fiber);
  abort();  // nobody resumes a finished fiber
}

static void fiber_entry() {
  launch->body(launch->closure);
  finish(current_fiber());
}

// The scheduler.

static void describe_deadlock(const Block& block) {
  std::string lanes;
  for (const Warp& warp : block.warps) {
    if (!warp.arrived) continue;
    char text[64];
    snprintf(text, sizeof text, "; lanes %08x of warp %u wait in a warp operation", warp.arrived,
             warp.index);
    if (lanes.size() < 200) lanes += text;
  }
  fail(rf_emulator_deadlock,
       "deadlock in block %u: %d of %d alive threads wait at __syncthreads, %d have returned%s",
       block.index, block.at_barrier, block.alive, block.threads - block.alive, lanes.c_str());
}

static void describe_livelock() {
  for (const Block& block : launch->blocks) {
    for (const Fiber& fiber : block.fibers) {
      if (!(fiber.warp->spinning & 1u << fiber.lane) || !fiber.awaited_counter) continue;
      fail(rf_emulator_livelock,
           "livelock: nothing but spinning for %d s; block %u thread %u waits for %u at %p, "
           "which stands at %u",
           launch->config.spin_seconds, fiber.block_index, fiber.thread_index, fiber.awaited_target,
           static_cast<const void*>(fiber.awaited_counter),
           __atomic_load_n(fiber.awaited_counter, __ATOMIC_RELAXED));
      return;
    }
  }
  fail(rf_emulator_livelock, "livelock: nothing but spinning for %d s",
       launch->config.spin_seconds);
}

// Ends a launch that only spins. A host thread may still set the abort word, hence the patience.
class SpinWatch {
 public:
  void after_pass() {
    if (launch->events != events_) {
      events_ = launch->events;
      idle_passes_ = 0;
      return;
    }
    if (idle_passes_++ == 0) start_seconds_ = now_seconds();
    const bool patient = now_seconds() - start_seconds_ < launch->config.spin_seconds;
    if (idle_passes_ > kMinimumPasses && !patient) describe_livelock();
    sched_yield();
  }

 private:
  static constexpr int kMinimumPasses = 64;  // a slow pass is not a livelock

  static double now_seconds() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }

  uint64_t events_ = ~uint64_t{0};
  int idle_passes_ = 0;
  double start_seconds_ = 0;
};

static void run_block(Block& block) {
  wake_spinners(block);
  if (Fiber* fiber = choose_fiber(block)) {
    resume(&launch->scheduler_stack_pointer, *fiber);
  } else {
    describe_deadlock(block);
  }
}

static void run_blocks() {
  std::vector<Block*> live;
  for (Block& block : launch->blocks) live.push_back(&block);
  if (launch->config.order == rf_emulator_descending) std::reverse(live.begin(), live.end());
  Random random(launch->config.seed);
  SpinWatch watch;
  while (!live.empty() && launch->status == rf_emulator_ok) {
    if (launch->config.order == rf_emulator_random) {
      for (size_t i = live.size(); i > 1; --i) std::swap(live[i - 1], live[random.next() % i]);
    }
    size_t kept = 0;
    for (Block* block : live) {
      if (launch->status == rf_emulator_ok) run_block(*block);
      if (block->alive) live[kept++] = block;
    }
    live.resize(kept);
    watch.after_pass();
  }
}

// Memory. The stacks stay mapped between launches: faulting them in costs more than small launches.

struct Stacks {
  char* base = nullptr;
  size_t bytes = 0;
};
static Stacks stacks;

static bool reserve_stacks(size_t count) {
  const size_t bytes = count * kStackStride + kStacksMargin + 4096;
  if (bytes <= stacks.bytes) return true;
  if (stacks.base) munmap(stacks.base, stacks.bytes);
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    stacks = {};
    return false;
  }
  madvise(base, bytes, MADV_NOHUGEPAGE);  // a fiber touches a page or two of its stack
  stacks = {static_cast<char*>(base), bytes};
  return true;
}

static void make_fiber(Block& block, unsigned thread, char* arena) {
  Fiber& fiber = block.fibers[thread];
  Warp& warp = block.warps[thread / kLanes];
  const size_t number = static_cast<size_t>(block.index) * block.threads + thread;
  fiber = {};
  fiber.thread_index = thread;
  fiber.block_index = block.index;
  fiber.block_size = static_cast<unsigned>(block.threads);
  fiber.grid_size = static_cast<unsigned>(launch->config.blocks);
  fiber.arena = arena;
  fiber.warp = &warp;
  fiber.lane = thread % kLanes;
  fiber.stack_low = stacks.base + kStacksMargin + number * kStackStride;
  memcpy(fiber.stack_low, &kCanary, sizeof kCanary);
  fiber.stack_pointer = prepare_stack(fiber.stack_low + kStackStride, fiber_entry);
  warp.alive |= 1u << fiber.lane;
  set_ready(warp, 1u << fiber.lane);
}

static void make_block(unsigned index, char* arena) {
  const rf_emulator_config& config = launch->config;
  const unsigned threads = static_cast<unsigned>(config.threads);
  Block& block = launch->blocks[index];
  block = {};
  block.index = index;
  block.threads = block.alive = config.threads;
  block.random = Random(config.seed + 77 * (index + 1));
  block.fibers.resize(threads);
  block.warps.resize((threads + kLanes - 1) / kLanes);
  for (unsigned i = 0; i < block.warps.size(); ++i) {
    block.warps[i] = {};
    block.warps[i].block = &block;
    block.warps[i].index = i;
    block.warps[i].fibers = &block.fibers[i * kLanes];
  }
  for (unsigned thread = 0; thread < threads; ++thread) make_fiber(block, thread, arena);
}

static bool check_config(const rf_emulator_config& config) {
  const bool good = config.blocks >= 1 && config.blocks <= kMaxBlocks && config.threads >= 1 &&
                    config.threads <= kMaxThreads && config.arena_bytes >= 0;
  if (!good) {
    fail(rf_emulator_misuse,
         "a launch of %d blocks of %d threads with %d arena bytes: the most is "
         "%d blocks of %d threads",
         config.blocks, config.threads, config.arena_bytes, kMaxBlocks, kMaxThreads);
  }
  return good;
}

static void run_launch() {
  const rf_emulator_config& config = launch->config;
  if (!check_config(config)) return;
  const size_t blocks = static_cast<size_t>(config.blocks);
  if (!reserve_stacks(blocks * static_cast<size_t>(config.threads))) {
    fail(rf_emulator_misuse, "no address space for the stacks of %d blocks of %d threads",
         config.blocks, config.threads);
    return;
  }
  // One byte more, so that the address just past an arena never belongs to the next block's.
  const size_t used = static_cast<size_t>(config.arena_bytes) + 1;
  const size_t stride = (used + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  char* arenas = static_cast<char*>(aligned_alloc(kArenaAlignment, stride * blocks));
  memset(arenas, config.poison ? 0xff : 0, stride * blocks);
  launch->blocks.resize(blocks);
  for (unsigned i = 0; i < blocks; ++i) make_block(i, arenas + stride * i);
  copies_begin(config);
  race_begin(config, {arenas, stride, stacks.base, stacks.bytes});
  run_blocks();
  race_end();
  free(arenas);
}

}  // namespace rf_emulator

// What the emitted file calls.

using namespace rf_emulator;

extern "C" int rf_emulator_run(const rf_emulator_config* config, void (*body)(void*),
                               void* closure) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  Launch own{*config, body, closure, nullptr, rf_emulator_ok, 0, {}};
  launch = &own;
  message.clear();
  run_launch();
  launch = nullptr;
  rf_emulator_current = nullptr;
  return own.status;
}

extern "C" const char* rf_emulator_message() { return message.c_str(); }

extern "C" void rf_emulator_block_barrier() { block_barrier(current_fiber()); }

extern "C" bool rf_emulator_block_any(bool predicate) {
  Fiber& fiber = current_fiber();
  Block& block = *fiber.warp->block;
  ++block.votes;
  block.ayes += predicate;
  block_barrier(fiber);
  return block.any;  // the next barrier needs this thread before it changes that
}

extern "C" void rf_emulator_warp_collective(unsigned mask, void* argument,
                                            rf_emulator_collective perform) {
  warp_collective(current_fiber(), mask, argument, perform);
}

extern "C" void rf_emulator_do_nothing(void* const*, unsigned) {}

extern "C" void rf_emulator_do_shuffle(void* const* arguments, unsigned mask) {
  constexpr uint64_t undefined = 0x7fdeadbe7fdeadbeu;  // NaN as one or two floats: easy to see
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    auto* shuffle = static_cast<rf_emulator_shuffle*>(arguments[__builtin_ctz(rest)]);
    const unsigned source = shuffle->source_lane;
    const bool present = mask & 1u << source;
    shuffle->result =
        present ? static_cast<rf_emulator_shuffle*>(arguments[source])->value : undefined;
  }
}

extern "C" unsigned rf_emulator_add(unsigned* word, unsigned amount) {
  if (amount == 0) spin(current_fiber());  // a way to poll
  const unsigned before = __atomic_fetch_add(word, amount, __ATOMIC_ACQ_REL);
  ++launch->events;
  race_acquire_all(word);
  race_release(word, before, before + amount);
  return before;
}

extern "C" void rf_emulator_signal(unsigned* counter, unsigned amount) {
  const unsigned before = __atomic_fetch_add(counter, amount, __ATOMIC_RELEASE);
  ++launch->events;
  race_release(counter, before, before + amount);
}

extern "C" bool rf_emulator_wait(const unsigned* counter, unsigned target,
                                 const unsigned* abort_word, unsigned most_polls) {
  Fiber& fiber = current_fiber();
  fiber.awaited_counter = counter;
  fiber.awaited_target = target;
  bool reached = false;
  for (unsigned polls = 1;; ++polls) {
    reached = static_cast<int>(__atomic_load_n(counter, __ATOMIC_ACQUIRE) - target) >= 0;
    const bool aborted = abort_word && __atomic_load_n(abort_word, __ATOMIC_RELAXED) != 0;
    if (reached || aborted || (most_polls && polls >= most_polls)) break;
    spin(fiber);
  }
  fiber.awaited_counter = nullptr;
  ++launch->events;
  if (reached) race_acquire(counter, target);
  return reached;
}

extern "C" unsigned rf_emulator_load(const unsigned* word) {
  spin(current_fiber());
  return __atomic_load_n(word, __ATOMIC_RELAXED);
}

extern "C" void rf_emulator_store(unsigned* word, unsigned value) {
  __atomic_store_n(word, value, __ATOMIC_RELAXED);
  ++launch->events;
  race_overwrite(word);
}
