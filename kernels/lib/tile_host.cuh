// The same tile primitives for one core that runs a whole block: loops that the compiler turns into
// vector code.
#if !defined(RF_SIMT)
#if defined(__clang__)
#define RF_VECTOR_LOOP _Pragma("clang loop vectorize(assume_safety)")
#else
#define RF_VECTOR_LOOP _Pragma("GCC ivdep")
#endif

template <int ROWS, int COLUMNS, int TASK_ROWS, int TASK_COLUMNS, class F>
RF_DEVICE void rf_tile_map(int task, F f) {
  constexpr int across = (COLUMNS + TASK_COLUMNS - 1) / TASK_COLUMNS;
  const int row0 = task / across * TASK_ROWS, column0 = task % across * TASK_COLUMNS;
  const int row1 = rf_least(row0 + TASK_ROWS, ROWS);
  const int column1 = rf_least(column0 + TASK_COLUMNS, COLUMNS);
  for (int row = row0; row < row1; ++row) {
    RF_VECTOR_LOOP
    for (int column = column0; column < column1; ++column) f(row, column);
  }
}

// All steps of a short fold for one column; in a loop over columns that is vector code.
template <class JOIN, int DEPTH, int R = 0, class T, class V>
RF_DEVICE T rf_fold_steps(int row, int column, T sum, V value) {
  if constexpr (R < DEPTH) {
    sum = JOIN::join(sum, (T)value(row, column, R));
    sum = rf_fold_steps<JOIN, DEPTH, R + 1>(row, column, sum, value);
  }
  return sum;
}

// The fold runs over a strip of columns at a time, so that its inner loop is over neighbours in
// memory. A short one whose steps are all there runs for each column, and the sum stays in a
// register.
template <class JOIN, int ROWS, int COLUMNS, int TASK_ROWS, int TASK_COLUMNS, int DEPTH, class T,
          class P, class V, class F>
RF_DEVICE void rf_tile_fold(int task, T initial, P present, V value, F finish) {
  constexpr int across = (COLUMNS + TASK_COLUMNS - 1) / TASK_COLUMNS;
  constexpr int strip = COLUMNS < 64 ? COLUMNS : 64;
  constexpr bool is_short = DEPTH <= 16;
  const int row0 = task / across * TASK_ROWS, column0 = task % across * TASK_COLUMNS;
  const int row1 = rf_least(row0 + TASK_ROWS, ROWS);
  const int column1 = rf_least(column0 + TASK_COLUMNS, COLUMNS);
  for (int row = row0; row < row1; ++row) {
    bool is_whole = is_short;
    for (int r = 0; is_short && r < DEPTH; ++r) is_whole &= present(row, r);
    if (is_short && is_whole) {
      RF_VECTOR_LOOP
      for (int c = column0; c < column1; ++c)
        finish(row, c, rf_fold_steps<JOIN, is_short ? DEPTH : 0>(row, c, initial, value));
      continue;
    }
    for (int start = column0; start < column1; start += strip) {
      const int count = rf_least(strip, column1 - start);
      T sums[strip];
      RF_VECTOR_LOOP
      for (int c = 0; c < count; ++c) sums[c] = initial;
      for (int r = 0; r < DEPTH; ++r) {
        if (!present(row, r)) continue;
        RF_VECTOR_LOOP
        for (int c = 0; c < count; ++c) sums[c] = JOIN::join(sums[c], (T)value(row, start + c, r));
      }
      RF_VECTOR_LOOP
      for (int c = 0; c < count; ++c) finish(row, start + c, sums[c]);
    }
  }
}

RF_DEVICE void rf_prefetch(const void*, int) {}
#endif
