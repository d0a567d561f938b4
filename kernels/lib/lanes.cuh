// The persistent loop. A block runs the lanes block, block + blocks, ...: one each on the device
// the plan was made for, several on a smaller one. Entries stand in topological order, so running
// lanes together cannot deadlock.
RF_DEVICE void rf_run_lanes(char* const* spaces, rf_control* control, char* arena, int launch,
                            int block, int blocks, unsigned epoch) {
  const rf_launch range = rf_launches[launch];
  for (int i = range.begin; i < range.end; ++i) {
    const rf_entry entry = rf_entries[i];
    const int past = entry.lane + entry.lanes;
    int lane =
        block >= entry.lane ? block : block + (entry.lane - block + blocks - 1) / blocks * blocks;
    if (lane >= past) continue;
    const int mine = (past - 1 - lane) / blocks + 1;
    if (entry.kind == RF_WAIT) {
      rf_wait(control, entry.what, (unsigned)entry.first, epoch);
    } else if (entry.kind == RF_SIGNAL) {
      rf_signal(control, entry.what, (unsigned)mine);
    } else {
      const rf_roperator op = rf_roperators[entry.what];
      const rf_view view = {spaces, rf_operands + op.first_operand};
      for (; lane < past; lane += blocks) {
        const int first = entry.first + (lane - entry.lane) * entry.count;
        if (entry.kind == RF_PREFETCH) {
          rf_prefetch_task(op.body, view, first);
          continue;
        }
        for (int task = first; task < first + entry.count; ++task) {
          rf_run_task(op.body, view, task, arena);
          rf_sync();  // the next task uses the same arena
        }
      }
    }
  }
}

#if defined(RF_SIMT)
#if defined(__CUDACC__)
extern "C" __global__ void __launch_bounds__(RF_THREADS, RF_BLOCKS_PER_SM)
    rf_kernel(const __grid_constant__ rf_spaces spaces, rf_control* control, int launch) {
#else
static void rf_kernel(const rf_spaces& spaces, rf_control* control, int launch) {
#endif
  const unsigned epoch = rf_load_relaxed(&control->epoch);
  rf_run_lanes(spaces.base, control, rf_arena(), launch, (int)blockIdx.x, (int)gridDim.x, epoch);
  rf_leave(control, gridDim.x, launch == RF_LAUNCHES - 1 ? 1 : 0);
}
#endif

#if defined(RF_EMULATE)
extern "C" __attribute__((visibility("default"))) int rf_emulate(const rf_emulator_config* config,
                                                                 char* const* spaces, void* control,
                                                                 int launch) {
  const rf_spaces& bases = *reinterpret_cast<const rf_spaces*>(spaces);
  return rf_emulator_launch(config,
                            [&] { rf_kernel(bases, static_cast<rf_control*>(control), launch); });
}
#endif
