// Rows whose elements are combined, and then each worked out by what is known of its row. A row is
// gone through a few times: every time `f(column, element)` sees an element, which it may set, and
// which is then there the next time.
#if defined(RF_SIMT)
// WARPS warps share a row; a thread has it for itself if there are none. A thread has up to four
// neighbours at a time, read at once, and keeps what it has in registers if the row is kept.
template <int COLUMNS, int WARPS>
struct rf_row_shape {
  static constexpr int threads = WARPS == 0 ? 1 : 32 * WARPS;
  static constexpr int most = COLUMNS >= 2 * threads ? 4 : COLUMNS > threads ? 2 : 1;
  static constexpr int wide = COLUMNS % most == 0 ? most : COLUMNS % 2 == 0 && most > 1 ? 2 : 1;
  static constexpr int step = threads * wide;
  static constexpr int turns = (COLUMNS + step - 1) / step;
};

template <class K, int COLUMNS, int WARPS, bool KEPT>
struct rf_row {
  using shape = rf_row_shape<COLUMNS, WARPS>;
  char* arena;  // what the warps of a row tell each other, in two places that take turns
  int folds;    // so many there were
  K elements[KEPT ? shape::turns * shape::wide : shape::wide];

  RF_MEMBER K* part(int turn) { return elements + (KEPT ? turn * shape::wide : 0); }
};

// f(row, turn) for the rows of one task: one after the other by all warps of the block, or one by
// each warp or thread.
template <int ROWS, int TASK_ROWS, int WARPS, class F>
RF_DEVICE void rf_each_row(int task, F f) {
  const int first = WARPS > 1 ? 0 : WARPS == 1 ? threadIdx.x / 32 : threadIdx.x;
  for (int i = first; i < TASK_ROWS; i += WARPS > 1 ? 1 : WARPS == 1 ? RF_WARPS : RF_THREADS) {
    const int row = task * TASK_ROWS + i;
    if (row < ROWS) f(row, i);
  }
}

// g(turn, column) for the first column of each part that a thread has.
template <int COLUMNS, int WARPS, bool KEPT, class G>
RF_DEVICE void rf_row_parts(G g) {
  using shape = rf_row_shape<COLUMNS, WARPS>;
  const int first = (int)(threadIdx.x % shape::threads) * shape::wide;
  if constexpr (KEPT) {
    RF_UNROLL
    for (int turn = 0; turn < shape::turns; ++turn) {
      const int column = turn * shape::step + first;
      if (COLUMNS % shape::step == 0 || column < COLUMNS) g(turn, column);
    }
  } else {
    RF_UNROLL_BY(8 / shape::wide)  // loads under way, as many as leave a thread its registers
    for (int column = first; column < COLUMNS; column += shape::step) g(0, column);
  }
}

// join over what the warps of a block have; every thread gets the result.
template <class JOIN, int WARPS, class T>
RF_DEVICE T rf_join_warps(T* told, T sum) {
  if (threadIdx.x % 32 == 0) told[threadIdx.x / 32] = sum;
  rf_sync();
  sum = told[0];
  RF_UNROLL
  for (int warp = 1; warp < WARPS; ++warp) sum = JOIN::join(sum, told[warp]);
  return sum;
}

// join over the columns of f(column, element); every thread of the row gets the result.
template <class JOIN, class K, int COLUMNS, int WARPS, bool KEPT, class T, class F>
RF_DEVICE T rf_row_fold(rf_row<K, COLUMNS, WARPS, KEPT>& row, T initial, F f) {
  using shape = rf_row_shape<COLUMNS, WARPS>;
  T sum = initial;
  rf_row_parts<COLUMNS, WARPS, KEPT>([&](int turn, int column) {
    K* part = row.part(turn);
    T values[shape::wide];
    RF_UNROLL
    for (int j = 0; j < shape::wide; ++j) values[j] = (T)f(column + j, part[j]);
    RF_UNROLL
    for (int j = 0; j < shape::wide; ++j) sum = JOIN::join(sum, values[j]);
  });
  if constexpr (WARPS > 0) {
    RF_UNROLL
    for (int step = 16; step > 0; step /= 2)  // the + makes an int of what is smaller than one
      sum = JOIN::join(sum, (T)__shfl_xor_sync(0xffffffffu, +sum, step));
  }
  if constexpr (WARPS > 1)
    sum = rf_join_warps<JOIN, WARPS>((T*)row.arena + row.folds++ % 2 * WARPS, sum);
  return sum;
}

// store(column, f(column, element)) for all columns.
template <class K, int COLUMNS, int WARPS, bool KEPT, class F, class S>
RF_DEVICE void rf_row_store(rf_row<K, COLUMNS, WARPS, KEPT>& row, F f, S store) {
  using shape = rf_row_shape<COLUMNS, WARPS>;
  rf_row_parts<COLUMNS, WARPS, KEPT>([&](int turn, int column) {
    K* part = row.part(turn);
    decltype(f(0, part[0])) values[shape::wide];
    RF_UNROLL
    for (int j = 0; j < shape::wide; ++j) values[j] = f(column + j, part[j]);
    RF_UNROLL
    for (int j = 0; j < shape::wide; ++j) store(column + j, values[j]);
  });
}

// One thread's word on behalf of its row.
template <int WARPS, class F>
RF_DEVICE void rf_row_once(F f) {
  if (threadIdx.x % (WARPS == 0 ? 1 : 32 * WARPS) == 0) f();
}
#else
// A core has the row in its cache.
template <class K, int COLUMNS, int WARPS, bool KEPT>
struct rf_row {
  char* arena;
  int folds;
  alignas(64) K elements[KEPT ? COLUMNS : 1];
};

template <int ROWS, int TASK_ROWS, int WARPS, class F>
RF_DEVICE void rf_each_row(int task, F f) {
  const int row1 = rf_least((task + 1) * TASK_ROWS, ROWS);
  for (int row = task * TASK_ROWS; row < row1; ++row) f(row, 0);
}

template <class K, int COLUMNS, int WARPS, bool KEPT, class F>
RF_DEVICE auto rf_row_value(rf_row<K, COLUMNS, WARPS, KEPT>& row, int column, F f) {
  if constexpr (KEPT) {
    return f(column, row.elements[column]);
  } else {
    K element{};
    return f(column, element);
  }
}

// Many partial results: the order of a sum is fixed, and the compiler may use vectors for it. With
// few, gcc unrolls the loop over them first and finds no vectors any more.
template <class JOIN, class K, int COLUMNS, int WARPS, bool KEPT, class T, class F>
RF_DEVICE T rf_row_fold(rf_row<K, COLUMNS, WARPS, KEPT>& row, T initial, F f) {
  constexpr int lanes = COLUMNS >= 64 ? 64 : COLUMNS >= 32 ? 32 : 16;
  constexpr int whole = COLUMNS / lanes * lanes;
  alignas(64) T sums[lanes];
  for (int j = 0; j < lanes; ++j) sums[j] = initial;
  for (int start = 0; start < whole; start += lanes) {
    RF_VECTOR_LOOP
    for (int j = 0; j < lanes; ++j)
      sums[j] = JOIN::join(sums[j], (T)rf_row_value(row, start + j, f));
  }
  RF_VECTOR_LOOP
  for (int j = 0; j < COLUMNS - whole; ++j)
    sums[j] = JOIN::join(sums[j], (T)rf_row_value(row, whole + j, f));
  RF_UNROLL
  for (int width = lanes / 2; width > 0; width /= 2) {
    RF_VECTOR_LOOP
    for (int j = 0; j < width; ++j) sums[j] = JOIN::join(sums[j], sums[j + width]);
  }
  return sums[0];
}

template <class K, int COLUMNS, int WARPS, bool KEPT, class F, class S>
RF_DEVICE void rf_row_store(rf_row<K, COLUMNS, WARPS, KEPT>& row, F f, S store) {
  RF_VECTOR_LOOP
  for (int c = 0; c < COLUMNS; ++c) store(c, rf_row_value(row, c, f));
}

template <int WARPS, class F>
RF_DEVICE void rf_row_once(F f) {
  f();
}
#endif
