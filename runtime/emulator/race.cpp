// The happens-before race detector.
//
// The emitted file is compiled with -fsanitize=thread, but libtsan is not linked: the __tsan_ entry
// points at the end of this file receive every access. What orders two accesses:
//   - __syncthreads, for the threads of a block;
//   - __syncwarp and the shuffles, for the lanes in their mask;
//   - a counter, between blocks: a signal releases what a __syncthreads of its block has ordered
//     before it (nothing younger: the house rule is stores, __syncthreads, one thread signals), and
//     a wait for the value v acquires only what the signals up to v have released, in the order in
//     which they came, even when more have arrived meanwhile;
//   - the start and the end of a launch.
//
// So a run finds a race when its two accesses happen in it, whether or not the values came out
// right. Two limits: of a word that more than eight blocks read before it is overwritten only eight
// readers are kept, others for other words; and reads by several lanes of one warp count as reads
// by the whole warp, those by several warps as reads by the whole block.
#define RF_EMULATOR_RUNTIME
#ifndef RF_EMULATOR_RACE
#define RF_EMULATOR_RACE
#endif
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "emulator.h"

namespace rf_emulator {
namespace {

constexpr unsigned kLanes = 32;

enum Kind {
  kWriteWrite,
  kWriteAfterRead,
  kReadAfterWrite,
  kUninitialised,
  kForeignShared,
  kOutside,
  kOverflow,
};
constexpr const char* kKindNames[] = {
    "write-write",
    "write-after-read",
    "read-after-write",
    "uninitialised shared read",
    "foreign shared memory",
    "access outside every buffer",
    "too many synchronisations for the detector's clocks",
};

// Epochs: who made an access, and when.

// `barrier` counts the barriers of the block from 1, `rendezvous` the warp operations of the lane
// since the last barrier. `who` is a thread, a whole warp or the whole block. Zero is nobody.
struct Epoch {
  uint64_t bits = 0;

  static constexpr unsigned kBarrierBits = 22, kBlockBits = 11, kWhoBits = 11, kRendezvousBits = 20;
  static constexpr unsigned kFirstWarp = 1024, kWholeBlock = 2047;

  static Epoch make(unsigned barrier, unsigned block, unsigned who, unsigned rendezvous) {
    uint64_t bits = rendezvous;
    bits = bits << kWhoBits | who;
    bits = bits << kBlockBits | block;
    return {bits << kBarrierBits | barrier};
  }
  unsigned barrier() const { return field(0, kBarrierBits); }
  unsigned block() const { return field(kBarrierBits, kBlockBits); }
  unsigned who() const { return field(kBarrierBits + kBlockBits, kWhoBits); }
  unsigned rendezvous() const {
    return field(kBarrierBits + kBlockBits + kWhoBits, kRendezvousBits);
  }
  bool nobody() const { return bits == 0; }
  bool is_block() const { return who() == kWholeBlock; }
  unsigned warp() const { return who() < kFirstWarp ? who() / kLanes : who() - kFirstWarp; }

 private:
  unsigned field(unsigned low, unsigned width) const {
    return static_cast<unsigned>(bits >> low) & ((1u << width) - 1);
  }
};

// Clocks: what has happened before what is done now.

// For each block, the number of its first barrier interval that is not known to be over.
using BlockClock = std::vector<unsigned>;

void join(BlockClock& into, const BlockClock& other) {
  for (size_t i = 0; i < into.size(); ++i) into[i] = std::max(into[i], other[i]);
}

// seen[i][j] is the first rendezvous of lane j that lane i has not seen.
struct WarpClock {
  unsigned own[kLanes];
  unsigned seen[kLanes][kLanes];
  bool used;
};

struct BlockState {
  unsigned barrier = 1;
  BlockClock known;
  std::vector<WarpClock> warps;
  // What single threads know beyond `known`, from waits since the last barrier.
  std::unordered_map<unsigned, std::shared_ptr<const BlockClock>> told;
};

// The signals of one counter, in the order in which they came.
struct Signals {
  struct Signal {
    unsigned total;  // added to the counter since `base`
    std::shared_ptr<const BlockClock> released;
  };
  unsigned base = 0;  // where the counter stood before the first of them
  std::vector<Signal> history;
};

// The shadow of memory: who wrote each word last, and who has read it since.

constexpr size_t kReadersKept = 8;
using ReadSet = std::array<Epoch, kReadersKept>;  // at most one epoch of each block

struct Cell {
  Epoch write;
  Epoch read;  // with barrier 0, `bits >> kBarrierBits` is the number of a read set
};

constexpr size_t kPageBytes = 4096;
constexpr size_t kWordBytes = 4;

// A cell is a word until something smaller than a word is accessed in the page, then a byte.
struct Page {
  Cell* cells = nullptr;
  bool by_byte = false;
};

class Region {
 public:
  Region(std::string name, const char* base, size_t bytes, int owner)
      : name(std::move(name)),
        base(base),
        bytes(bytes),
        owner(owner),
        pages((bytes + kPageBytes - 1) / kPageBytes) {}
  Region(Region&& other) = default;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() {
    for (Page& page : pages) free(page.cells);
  }

  std::string name;
  const char* base;
  size_t bytes;
  int owner;  // the block whose shared memory this is, or -1
  std::vector<Page> pages;
};

struct Range {
  const char* base;
  size_t bytes;
  bool contains(const char* address) const { return static_cast<size_t>(address - base) < bytes; }
};

// The fiber that runs, in the form that accesses need.
struct Running {
  unsigned block, thread, lane;
  BlockState* state;
  WarpClock* warp;
  const BlockClock* told;  // or null
  Epoch epoch;
  Epoch block_epoch;
  bool valid;
};

struct Detector {
  // Given from outside, for all launches until rf_race_clear.
  std::vector<std::pair<const char*, size_t>> buffers;
  std::vector<Range> exempt;
  // Of the running launch.
  std::vector<Region> global_regions, arenas;
  std::vector<Range> readable;
  Range stacks, arena_span;
  size_t arena_stride = 1;
  std::vector<BlockState> blocks;
  std::unordered_map<const unsigned*, Signals> counters;
  std::vector<ReadSet> read_sets;
  std::vector<uint64_t> free_read_sets;
  Running running{};
  size_t last_region = 0;
  // The findings.
  long accesses = 0, races = 0;
  std::set<std::pair<const void*, Kind>> reported;
  std::string report;
};
Detector detector;

// Reports.

constexpr size_t kReportsKept = 12;

std::string describe(Epoch epoch) {
  char text[96];
  if (epoch.is_block()) {
    snprintf(text, sizeof text, "several warps of block %u", epoch.block());
  } else if (epoch.who() >= Epoch::kFirstWarp) {
    snprintf(text, sizeof text, "block %u warp %u", epoch.block(), epoch.warp());
  } else {
    snprintf(text, sizeof text, "block %u thread %u", epoch.block(), epoch.who());
  }
  return text;
}

std::string describe_place(const Region* region, const char* address) {
  char text[64];
  if (region) {
    snprintf(text, sizeof text, "+0x%zx", static_cast<size_t>(address - region->base));
    return region->name + text;
  }
  snprintf(text, sizeof text, "%p", static_cast<const void*>(address));
  return text;
}

// An offset in the library, as addr2line takes it.
std::string describe_code(const void* return_address) {
  Dl_info library{};
  const char* call = static_cast<const char*>(return_address) - 1;
  if (!return_address || !dladdr(call, &library)) return "unknown code";
  char text[32];
  snprintf(text, sizeof text, "+0x%zx",
           static_cast<size_t>(call - static_cast<const char*>(library.dli_fbase)));
  const std::string path = library.dli_fname;
  return path.substr(path.rfind('/') + 1) + text;
}

__attribute__((noinline)) void report(Kind kind, const Region* region, const char* address,
                                      Epoch other, const void* code) {
  ++detector.races;
  if (detector.reported.size() >= kReportsKept) return;
  if (!detector.reported.insert({code, kind}).second) return;
  const Running& running = detector.running;
  std::string& text = detector.report;
  text += std::string(kKindNames[kind]) + ": block " + std::to_string(running.block) + " thread " +
          std::to_string(running.thread) + " at " + describe_place(region, address);
  if (!other.nobody()) text += ", against " + describe(other);
  text += ", code " + describe_code(code) + "\n";
}

// What happens before what.

bool ordered(Epoch before, const Running& now) {
  if (before.nobody()) return true;
  const unsigned block = before.block();
  if (block != now.block) {
    return before.barrier() < now.state->known[block] ||
           (now.told && before.barrier() < (*now.told)[block]);
  }
  if (before.barrier() < now.state->barrier || before.who() == now.thread) return true;
  if (before.is_block() || before.warp() != now.thread / kLanes) return false;
  const unsigned* seen = now.warp->seen[now.lane];
  if (before.who() < Epoch::kFirstWarp) return before.rendezvous() < seen[before.who() % kLanes];
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if (lane != now.lane && before.rendezvous() >= seen[lane]) return false;
  }
  return true;
}

// One epoch for two unordered reads of the same block, hence of the same barrier interval.
Epoch merge_readers(Epoch before, const Running& now) {
  if (before.is_block() || before.warp() != now.thread / kLanes) return now.block_epoch;
  return Epoch::make(now.epoch.barrier(), now.block, Epoch::kFirstWarp + now.thread / kLanes,
                     std::max(before.rendezvous(), now.epoch.rendezvous()));
}

// Reads of a cell.

bool is_set(Epoch read) { return read.barrier() == 0 && !read.nobody(); }

ReadSet& read_set(Epoch read) { return detector.read_sets[read.bits >> Epoch::kBarrierBits]; }

Epoch new_read_set(const ReadSet& content) {
  uint64_t number = detector.read_sets.size();
  if (detector.free_read_sets.empty()) {
    detector.read_sets.push_back(content);
  } else {
    number = detector.free_read_sets.back();
    detector.free_read_sets.pop_back();
    detector.read_sets[number] = content;
  }
  return {number << Epoch::kBarrierBits};
}

void add_to_read_set(ReadSet& set, const Running& now, const char* address) {
  Epoch* vacant = nullptr;
  for (Epoch& epoch : set) {
    if (ordered(epoch, now)) {
      epoch = {};
      vacant = &epoch;
    } else if (epoch.block() == now.block) {
      epoch = merge_readers(epoch, now);
      return;
    }
  }
  if (!vacant) {  // a different choice for different words, so that some word keeps each reader
    const size_t word = reinterpret_cast<uintptr_t>(address) / kWordBytes;
    vacant = &set[(word * 2654435761u >> 8 ^ now.block) % kReadersKept];
  }
  *vacant = now.epoch;
}

void remember_read(Cell& cell, const Running& now, const char* address) {
  const Epoch read = cell.read;
  if (is_set(read)) {
    add_to_read_set(read_set(read), now, address);
  } else if (ordered(read, now)) {
    cell.read = now.epoch;  // who comes after this read comes after the older one too
  } else if (read.block() == now.block) {
    cell.read = merge_readers(read, now);
  } else {
    cell.read = new_read_set({read, now.epoch});
  }
}

// The first unordered reader, or nobody.
Epoch find_racing_read(const Cell& cell, const Running& now) {
  if (!is_set(cell.read)) return ordered(cell.read, now) ? Epoch{} : cell.read;
  for (const Epoch epoch : read_set(cell.read)) {
    if (!ordered(epoch, now)) return epoch;
  }
  return {};
}

// One access to one cell.

void read_cell(Cell& cell, Region& region, const char* address, const void* code) {
  const Running& now = detector.running;
  if (!ordered(cell.write, now)) {
    report(kReadAfterWrite, &region, address, cell.write, code);
  } else if (region.owner >= 0 && cell.write.nobody()) {
    report(kUninitialised, &region, address, {}, code);
  }
  if (cell.read.bits == now.epoch.bits || cell.read.bits == now.block_epoch.bits) return;
  remember_read(cell, now, address);
}

void write_cell(Cell& cell, Region& region, const char* address, const void* code) {
  const Running& now = detector.running;
  if (!ordered(cell.write, now)) {
    report(kWriteWrite, &region, address, cell.write, code);
  } else if (!cell.read.nobody()) {
    const Epoch reader = find_racing_read(cell, now);
    if (!reader.nobody()) report(kWriteAfterRead, &region, address, reader, code);
  }
  if (is_set(cell.read)) detector.free_read_sets.push_back(cell.read.bits >> Epoch::kBarrierBits);
  cell = {now.epoch, {}};
}

// The cells of an access.

// What is announced may be written at any time from now on: until it is, nobody may read there.
enum Access { kRead, kWrite, kAnnounce };

Cell* allocate_cells(size_t count) {
  auto* cells = static_cast<Cell*>(calloc(count, sizeof(Cell)));
  if (!cells) abort();
  return cells;
}

void split_into_bytes(Page& page) {
  Cell* bytes = allocate_cells(kPageBytes);
  for (size_t i = 0; i < kPageBytes; ++i) {
    bytes[i] = page.cells[i / kWordBytes];
    const bool shared = is_set(bytes[i].read) && i % kWordBytes != 0;
    if (shared) bytes[i].read = new_read_set(ReadSet(read_set(bytes[i].read)));
  }
  free(page.cells);
  page = {bytes, true};
}

Page& prepare_page(Region& region, size_t offset, bool whole_words) {
  Page& page = region.pages[offset / kPageBytes];
  if (!page.cells) {
    page = {allocate_cells(whole_words ? kPageBytes / kWordBytes : kPageBytes), !whole_words};
  } else if (!whole_words && !page.by_byte) {
    split_into_bytes(page);
  }
  return page;
}

template <Access kAccess>
void access_region(Region& region, const char* address, size_t bytes, const void* code) {
  size_t offset = static_cast<size_t>(address - region.base);
  size_t end = offset + bytes;
  if (__builtin_expect(end > region.bytes, false)) {
    report(kOutside, &region, region.base + region.bytes, {}, code);
    end = region.bytes;
  }
  const bool whole_words = (offset | end) % kWordBytes == 0;
  while (offset < end) {
    const Page& page = prepare_page(region, offset, whole_words);
    const size_t step = page.by_byte ? 1 : kWordBytes;
    const size_t stop = std::min(end, (offset / kPageBytes + 1) * kPageBytes);
    for (; offset < stop; offset += step) {
      Cell& cell = page.cells[offset % kPageBytes / step];
      if (kAccess == kRead) {
        read_cell(cell, region, region.base + offset, code);
      } else {
        write_cell(cell, region, region.base + offset, code);
      }
      if (kAccess == kAnnounce) cell = {};
    }
  }
}

// Finding the region of an address.

Region* find_global(const char* address) {
  const size_t count = detector.global_regions.size();
  for (size_t i = 0; i < count; ++i) {
    const size_t candidate = (detector.last_region + i) % count;
    Region& region = detector.global_regions[candidate];
    if (static_cast<size_t>(address - region.base) < region.bytes) {
      detector.last_region = candidate;
      return &region;
    }
  }
  return nullptr;
}

template <Access kAccess>
void access_elsewhere(const char* address, const void* code) {
  for (const Range& range : detector.exempt) {
    if (range.contains(address)) return;
  }
  if (kAccess == kRead) {
    for (const Range& range : detector.readable) {
      if (range.contains(address)) return;
    }
  }
  report(kOutside, nullptr, address, {}, code);
}

template <Access kAccess>
void access_arena(const char* address, size_t bytes, const void* code) {
  const size_t offset = static_cast<size_t>(address - detector.arena_span.base);
  Region& arena = detector.arenas[offset / detector.arena_stride];
  if (static_cast<size_t>(address - arena.base) >= arena.bytes) {
    report(kOutside, &arena, address, {}, code);
  } else if (arena.owner != static_cast<int>(detector.running.block)) {
    report(kForeignShared, &arena, address, {}, code);
  } else {
    access_region<kAccess>(arena, address, bytes, code);
  }
}

template <Access kAccess>
inline void access(const void* pointer, size_t bytes, const void* code) {
  const char* address = static_cast<const char*>(pointer);
  if (detector.stacks.contains(address) || !detector.running.valid) return;
  ++detector.accesses;
  if (detector.arena_span.contains(address)) {
    access_arena<kAccess>(address, bytes, code);
  } else if (Region* region = find_global(address)) {
    access_region<kAccess>(*region, address, bytes, code);
  } else {
    --detector.accesses;  // counted are only accesses to what is watched
    access_elsewhere<kAccess>(address, code);
  }
}

// What may be read without being a buffer: the library's own tables, and the stack of the caller,
// which holds the kernel's arguments.

int add_own_segments(dl_phdr_info* library, size_t, void*) {
  std::vector<Range> segments;
  bool own = false;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& header = library->dlpi_phdr[i];
    if (header.p_type != PT_LOAD) continue;
    const auto* base = reinterpret_cast<const char*>(library->dlpi_addr + header.p_vaddr);
    segments.push_back({base, header.p_memsz});
    own |= segments.back().contains(reinterpret_cast<const char*>(&detector));
  }
  if (own) detector.readable = segments;
  return own;
}

void add_own_stack() {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
  void* base = nullptr;
  size_t bytes = 0;
  pthread_attr_getstack(&attributes, &base, &bytes);
  pthread_attr_destroy(&attributes);
  detector.readable.push_back({static_cast<const char*>(base), bytes});
}

void make_regions(const rf_emulator_config& config, const Memory& memory) {
  detector.global_regions.clear();
  detector.arenas.clear();
  for (const auto& [base, bytes] : detector.buffers) {
    const std::string name = "buffer " + std::to_string(detector.global_regions.size());
    detector.global_regions.emplace_back(name, base, bytes, -1);
  }
  for (int block = 0; block < config.blocks; ++block) {
    detector.arenas.emplace_back("shared memory of block " + std::to_string(block),
                                 memory.arenas + memory.arena_stride * static_cast<size_t>(block),
                                 static_cast<size_t>(config.arena_bytes), block);
  }
}

// The clocks of the running fiber, after anything that changed them.
void refresh_running() {
  Running& running = detector.running;
  BlockState& state = *running.state;
  if (state.barrier >> Epoch::kBarrierBits ||
      running.warp->own[running.lane] >> Epoch::kRendezvousBits) {
    report(kOverflow, nullptr, nullptr, {}, nullptr);
  }
  running.told = nullptr;
  if (!state.told.empty()) {
    const auto found = state.told.find(running.thread);
    if (found != state.told.end()) running.told = found->second.get();
  }
  running.epoch =
      Epoch::make(state.barrier, running.block, running.thread, running.warp->own[running.lane]);
  running.block_epoch = Epoch::make(state.barrier, running.block, Epoch::kWholeBlock, 0);
}

// What the running thread knows of all blocks.
BlockClock known_now() {
  const Running& running = detector.running;
  BlockClock known = running.state->known;
  if (running.told) join(known, *running.told);
  return known;
}

void learn(const BlockClock& released) {
  auto known = std::make_shared<BlockClock>(known_now());
  join(*known, released);
  detector.running.state->told[detector.running.thread] = std::move(known);
  refresh_running();
}

}  // namespace

// What fibers.cpp tells.

void race_begin(const rf_emulator_config& config, const Memory& memory) {
  const size_t blocks = static_cast<size_t>(config.blocks);
  const size_t warps = (static_cast<size_t>(config.threads) + kLanes - 1) / kLanes;
  detector.stacks = {memory.stacks, memory.stacks_bytes};
  detector.arena_span = {memory.arenas, memory.arena_stride * blocks};
  detector.arena_stride = memory.arena_stride;
  make_regions(config, memory);
  detector.readable.clear();
  dl_iterate_phdr(add_own_segments, nullptr);
  add_own_stack();
  detector.blocks.assign(blocks, {});
  for (BlockState& state : detector.blocks) {
    state.known.assign(blocks, 0);
    state.warps.assign(warps, {});
  }
  detector.counters.clear();
  detector.read_sets.assign(1, {});  // number 0 would look like nobody
  detector.free_read_sets.clear();
}

void race_end() {
  detector.running.valid = false;
  detector.global_regions.clear();
  detector.arenas.clear();
  detector.stacks = detector.arena_span = {};
}

void race_enter(const rf_emulator_thread& thread) {
  Running& running = detector.running;
  running.block = thread.block_index;
  running.thread = thread.thread_index;
  running.lane = thread.thread_index % kLanes;
  running.state = &detector.blocks[thread.block_index];
  running.warp = &running.state->warps[thread.thread_index / kLanes];
  running.valid = true;
  refresh_running();
}

void race_block_barrier(unsigned block) {
  BlockState& state = detector.blocks[block];
  ++state.barrier;
  for (const auto& [thread, known] : state.told) join(state.known, *known);
  state.told.clear();
  for (WarpClock& warp : state.warps) {
    if (warp.used) warp = {};
  }
}

void race_warp_rendezvous(unsigned block, unsigned warp_index, unsigned lanes) {
  BlockState& state = detector.blocks[block];
  WarpClock& warp = state.warps[warp_index];
  warp.used = true;
  unsigned seen[kLanes] = {};
  std::shared_ptr<BlockClock> told;
  for (unsigned rest = lanes; rest; rest &= rest - 1) {
    const unsigned lane = __builtin_ctz(rest);
    ++warp.own[lane];
    for (unsigned j = 0; j < kLanes; ++j) seen[j] = std::max(seen[j], warp.seen[lane][j]);
    if (state.told.empty()) continue;
    const auto found = state.told.find(warp_index * kLanes + lane);
    if (found == state.told.end()) continue;
    if (!told) told = std::make_shared<BlockClock>(state.known);
    join(*told, *found->second);
  }
  for (unsigned rest = lanes; rest; rest &= rest - 1) {
    const unsigned lane = __builtin_ctz(rest);
    seen[lane] = warp.own[lane];
    if (told) state.told[warp_index * kLanes + lane] = told;
  }
  for (unsigned rest = lanes; rest; rest &= rest - 1) {
    memcpy(warp.seen[__builtin_ctz(rest)], seen, sizeof seen);
  }
}

void race_release(const unsigned* counter, unsigned before, unsigned after) {
  const Running& running = detector.running;
  Signals& signals = detector.counters[counter];
  if (signals.history.empty()) signals.base = before;
  auto released = std::make_shared<BlockClock>(known_now());
  (*released)[running.block] = running.state->barrier;
  if (!signals.history.empty()) join(*released, *signals.history.back().released);
  signals.history.push_back({after - signals.base, std::move(released)});
}

void race_acquire(const unsigned* counter, unsigned target) {
  const auto found = detector.counters.find(counter);
  if (found == detector.counters.end()) return;
  const Signals& signals = found->second;
  const unsigned needed = target - signals.base;
  if (static_cast<int>(needed) <= 0) return;  // reached before this launch
  const auto first = std::lower_bound(
      signals.history.begin(), signals.history.end(), needed,
      [](const Signals::Signal& signal, unsigned value) { return signal.total < value; });
  if (first != signals.history.end()) learn(*first->released);
}

void race_acquire_all(const unsigned* counter) {
  const auto found = detector.counters.find(counter);
  if (found == detector.counters.end() || found->second.history.empty()) return;
  learn(*found->second.history.back().released);
}

// A relaxed store releases nothing and cuts off what earlier signals have released.
void race_overwrite(const unsigned* counter) { detector.counters.erase(counter); }

}  // namespace rf_emulator

// The interface of the Python side.

using rf_emulator::detector;

#define RF_RACE_API extern "C" __attribute__((visibility("default")))

RF_RACE_API void rf_race_region(const void* base, size_t bytes) {
  detector.buffers.push_back({static_cast<const char*>(base), bytes});
}

// Accesses to this memory are never races: control words.
RF_RACE_API void rf_race_exempt(const void* base, size_t bytes) {
  detector.exempt.push_back({static_cast<const char*>(base), bytes});
}

RF_RACE_API void rf_race_clear() {
  detector.buffers.clear();
  detector.exempt.clear();
  detector.accesses = detector.races = 0;
  detector.reported.clear();
  detector.report.clear();
}

RF_RACE_API long rf_race_count() { return detector.races; }
RF_RACE_API long rf_race_accesses() { return detector.accesses; }
RF_RACE_API const char* rf_race_report() { return detector.report.c_str(); }

// The entry points of the instrumentation. Local to this library: a process may have a libtsan.

#define RF_TSAN_ACCESS(suffix, bytes, kind)                                              \
  extern "C" void __tsan_##suffix(void* address) {                                       \
    rf_emulator::access<rf_emulator::kind>(address, bytes, __builtin_return_address(0)); \
  }
#define RF_TSAN_SIZE(bytes)                           \
  RF_TSAN_ACCESS(read##bytes, bytes, kRead)           \
  RF_TSAN_ACCESS(write##bytes, bytes, kWrite)         \
  RF_TSAN_ACCESS(unaligned_read##bytes, bytes, kRead) \
  RF_TSAN_ACCESS(unaligned_write##bytes, bytes, kWrite)

RF_TSAN_SIZE(1)
RF_TSAN_SIZE(2)
RF_TSAN_SIZE(4)
RF_TSAN_SIZE(8)
RF_TSAN_SIZE(16)

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

void __tsan_read_range(void* address, size_t bytes) {
  rf_emulator::access<rf_emulator::kRead>(address, bytes, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t bytes) {
  rf_emulator::access<rf_emulator::kWrite>(address, bytes, __builtin_return_address(0));
}

void rf_emulator_announce_write(void* address, size_t bytes) {
  rf_emulator::access<rf_emulator::kAnnounce>(address, bytes, __builtin_return_address(0));
}

// emulator.h gives the emitted file these for the functions of the same names.
void* rf_emulator_memcpy(void* to, const void* from, size_t bytes) {
  rf_emulator::access<rf_emulator::kRead>(from, bytes, __builtin_return_address(0));
  rf_emulator::access<rf_emulator::kWrite>(to, bytes, __builtin_return_address(0));
  return memcpy(to, from, bytes);
}
void* rf_emulator_memmove(void* to, const void* from, size_t bytes) {
  rf_emulator::access<rf_emulator::kRead>(from, bytes, __builtin_return_address(0));
  rf_emulator::access<rf_emulator::kWrite>(to, bytes, __builtin_return_address(0));
  return memmove(to, from, bytes);
}
void* rf_emulator_memset(void* to, int value, size_t bytes) {
  rf_emulator::access<rf_emulator::kWrite>(to, bytes, __builtin_return_address(0));
  return memset(to, value, bytes);
}
}
