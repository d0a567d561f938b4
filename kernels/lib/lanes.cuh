// The units of an event are done: each of its counters hears of those in its group. The last group
// may be smaller; whoever does its last unit stands for the missing ones, so that all are full
// alike.
RF_DEVICE void rf_signal_units(rf_control* control, const rf_event& event, int first, int count) {
  const int end = first + count == event.size
                      ? (event.size + event.group - 1) / event.group * event.group
                      : first + count;
  int from = first;
  for (int k = first / event.group; from < end; ++k) {
    const int to = rf_least(end, (k + 1) * event.group);
    rf_signal(control, event.counter + k, (unsigned)(to - from));
    from = to;
  }
}

// Which of the next 32 entries concern this block: bit i for entry `begin + i`. Lanes block, block
// + blocks, ... are the block's own.
RF_DEVICE int rf_first_lane(const rf_entry& entry, int block, int blocks) {
  return block >= entry.lane ? block : block + (entry.lane - block + blocks - 1) / blocks * blocks;
}
#if defined(RF_SIMT)
RF_DEVICE unsigned rf_own_entries(int begin, int end, int block, int blocks) {
  const int i = begin + (int)(threadIdx.x % 32);
  bool own = false;
  if (i < end)
    own = rf_first_lane(rf_entries[i], block, blocks) < rf_entries[i].lane + rf_entries[i].lanes;
  return __ballot_sync(0xffffffffu, own);
}
#else
RF_DEVICE unsigned rf_own_entries(int begin, int end, int block, int blocks) {
  unsigned own = 0;
  for (int i = begin; i < rf_least(end, begin + 32); ++i)
    if (rf_first_lane(rf_entries[i], block, blocks) < rf_entries[i].lane + rf_entries[i].lanes)
      own |= 1u << (i - begin);
  return own;
}
#endif

// What a block knows while it goes through the entries.
struct rf_place {
  char* const* spaces;
  rf_control* control;
  char* arena;
  int launch, block, blocks;
  unsigned epoch;
  unsigned waits;  // since the block was last gathered; one in vain adds RF_IN_VAIN
};
enum : unsigned { RF_IN_VAIN = 1u << 31 };

// Who waits in entry `number` for which counter.
RF_DEVICE rf_report rf_report_of(const rf_place& at, int number, int lane, int counter) {
  const rf_launch range = rf_launches[at.launch];
  const int event = rf_entries[number].what;
  const unsigned full = (unsigned)rf_events[event].group;
  int next = -1, source = -1, last = -1;
  for (int i = range.begin; i < number; ++i) {
    if (rf_entries[i].kind == RF_RUN) last = rf_entries[i].what;
    if (rf_entries[i].kind == RF_SIGNAL && rf_entries[i].what == event) source = last;
  }
  for (int i = range.end - 1; i > number; --i) {
    const rf_entry& entry = rf_entries[i];
    if (entry.kind == RF_RUN && lane >= entry.lane && lane < entry.lane + entry.lanes)
      next = entry.what;
  }
  const unsigned seen = rf_load_relaxed(&at.control->counters[counter]) - full * at.epoch;
  return {at.launch, at.block, lane, number, event, counter, full, seen, next, source};
}

// Ends the run. All that wait in vain report, one after the other, and the first entry stays:
// entries stand in topological order, so that is where the trouble began, and the others follow.
RF_DEVICE void rf_give_up(const rf_place& at, int number, int lane, int counter) {
  rf_control* control = at.control;
  rf_store_relaxed(&control->abort, 1);
  const rf_report own = rf_report_of(at, number, lane, counter);
  const unsigned turn = rf_add_both(&control->came, 1);
  while (rf_add_both(&control->told, 0) != turn) {
  }
  const int entry = control->report.entry;
  if (turn == 0 || number < entry || (number == entry && counter < control->report.counter))
    control->report = own;
  rf_add_both(&control->told, 1);
}

RF_DEVICE void rf_wait_units(rf_place& at, int number, int lane, int first, int count) {
  const rf_event event = rf_events[rf_entries[number].what];
  const int from = first / event.group, to = (first + count - 1) / event.group;
  const int missing = rf_wait(at.control, event.counter + from, to - from + 1,
                              (unsigned)event.group, at.epoch, (int)(at.waits++ % RF_THREADS));
  if (missing < 0) return;
  at.waits |= RF_IN_VAIN;
  if (RF_SPIN_CAP) rf_give_up(at, number, lane, missing);
}

template <unsigned KERNELS>
RF_DEVICE void rf_run_tasks(const rf_place& at, int what, int first, int count) {
  const rf_roperator op = rf_roperators[what];
  const rf_view view = {at.spaces, rf_operands + op.first_operand};
  for (int task = first; task < first + count; ++task) {
    rf_run_task<KERNELS>(op.body, view, task, at.arena);
    rf_sync();  // the next task uses the same arena
  }
}

// False once the run is aborted.
template <unsigned KERNELS>
RF_DEVICE bool rf_do_entry(rf_place& at, int number) {
  const rf_entry& entry = rf_entries[number];
  if (at.waits && (entry.kind == RF_RUN || entry.kind == RF_SIGNAL)) {
    // what some threads waited for has come: all may go on
    if (rf_sync_any(at.waits >= RF_IN_VAIN)) return false;
    at.waits = 0;
  }
  for (int lane = rf_first_lane(entry, at.block, at.blocks); lane < entry.lane + entry.lanes;
       lane += at.blocks) {
    const int first = entry.first + (lane - entry.lane) / entry.per * entry.step;
    if (entry.kind == RF_WAIT) {
      rf_wait_units(at, number, lane, first, entry.count);
    } else if (entry.kind == RF_SIGNAL) {
      rf_signal_units(at.control, rf_events[entry.what], first, entry.count);
    } else if (entry.kind == RF_RUN) {
      rf_run_tasks<KERNELS>(at, entry.what, first, entry.count);
    } else {
      const rf_roperator op = rf_roperators[entry.what];
      rf_prefetch_task(op.body, rf_view{at.spaces, rf_operands + op.first_operand}, first);
    }
  }
  return true;
}

// The persistent loop. A block runs the lanes block, block + blocks, ...: one each on the device
// the plan was made for, several on a smaller one. Entries stand in topological order, so running
// lanes together cannot deadlock.
template <unsigned KERNELS>
RF_DEVICE void rf_run_lanes(char* const* spaces, rf_control* control, char* arena, int launch,
                            int block, int blocks, unsigned epoch) {
  if (RF_EMPTY) return;
  const rf_launch range = rf_launches[launch];
  rf_place at = {spaces, control, arena, launch, block, blocks, epoch, 0};
  for (int begin = range.begin; begin < range.end; begin += 32) {
    unsigned own = rf_own_entries(begin, range.end, block, blocks);
    for (int i = begin; own; ++i, own >>= 1)
      if ((own & 1) && !rf_do_entry<KERNELS>(at, i)) return;
  }
}

#if defined(RF_SIMT)
template <unsigned KERNELS>
RF_DEVICE void rf_run_block(char* const* spaces, rf_control* control, int launch) {
  const unsigned epoch = rf_load_relaxed(&control->epoch);
  // a launch behind an aborted one does nothing; only waits that can give up abort
  if (!RF_SPIN_CAP || !rf_sync_any(rf_load_relaxed(&control->abort) != 0))
    rf_run_lanes<KERNELS>(spaces, control, rf_arena(), launch, (int)blockIdx.x, (int)gridDim.x,
                          epoch);
  rf_leave(control, gridDim.x, launch == RF_LAUNCHES - 1 ? 1 : 0);
}
#endif

// Where each space starts. A kernel takes it by value: the launch holds the addresses, so that a
// captured graph replays with its own, and nothing is copied before a run.
struct rf_spaces {
  char* base[RF_SPACES];
};

// Launches that give a block the same part of an SM share a kernel, which has only their bodies.
#if defined(__CUDACC__)
#define RF_KERNEL(number, blocks_per_sm)                                                      \
  extern "C" __global__ void __launch_bounds__(RF_THREADS, blocks_per_sm) rf_kernel_##number( \
      const __grid_constant__ rf_spaces spaces, rf_control* control, int launch) {            \
    rf_run_block<1u << number>(spaces.base, control, launch);                                 \
  }
#else
#define RF_KERNEL(number, blocks_per_sm)
#endif

#if defined(RF_EMULATE)
extern "C" __attribute__((visibility("default"))) int rf_emulate(const rf_emulator_config* config,
                                                                 char* const* spaces, void* control,
                                                                 int launch) {
  return rf_emulator_launch(
      config, [&] { rf_run_block<~0u>(spaces, static_cast<rf_control*>(control), launch); });
}
#endif
