// Tile primitives for a block of RF_THREADS threads. Kernels above this line never see a thread
// number.
#if defined(RF_SIMT)
enum { RF_WARPS = RF_THREADS / 32 };

// f(row, column) for every element of one task's tile of a ROWS x COLUMNS space.
template <int ROWS, int COLUMNS, int TASK_ROWS, int TASK_COLUMNS, class F>
RF_DEVICE void rf_tile_map(int task, F f) {
  constexpr int across = (COLUMNS + TASK_COLUMNS - 1) / TASK_COLUMNS;
  const int row0 = task / across * TASK_ROWS, column0 = task % across * TASK_COLUMNS;
  for (int i = threadIdx.x; i < TASK_ROWS * TASK_COLUMNS; i += RF_THREADS) {
    const int row = row0 + i / TASK_COLUMNS, column = column0 + i % TASK_COLUMNS;
    if (row < ROWS && column < COLUMNS) f(row, column);
  }
}

// The same space with a reduction in each element: finish(row, column, join over r of value(row,
// column, r)) over all r that are present(row, r).
template <class JOIN, int ROWS, int COLUMNS, int TASK_ROWS, int TASK_COLUMNS, int DEPTH, class T,
          class P, class V, class F>
RF_DEVICE void rf_tile_fold(int task, T initial, P present, V value, F finish) {
  rf_tile_map<ROWS, COLUMNS, TASK_ROWS, TASK_COLUMNS>(task, [=](int row, int column) {
    T sum = initial;
    for (int r = 0; r < DEPTH; ++r)
      if (present(row, r)) sum = JOIN::join(sum, (T)value(row, column, r));
    finish(row, column, sum);
  });
}

// Ask L2 for a range that no running task writes.
RF_DEVICE void rf_prefetch(const void* start, int bytes) {
  for (int at = threadIdx.x * 128; at < bytes; at += RF_THREADS * 128)
    rf_prefetch_line((const char*)start + at);
}
#endif
