// Rows that need their own statistics: softmax, log-softmax and normalisation to mean 0 and
// variance 1. load(row, column) gives an element, store(row, column, value) takes the result.
template <int ROWS, int COLUMNS, int TASK_ROWS, class L, class S>
RF_DEVICE void rf_softmax(int task, L load, S store) {
  rf_each_row<ROWS, TASK_ROWS>(task, [=](int row) {
    using T = decltype(load(0, 0));
    const T peak =
        rf_row_fold<rf_larger, COLUMNS>((T)-RF_INFINITY, [=](int c) { return load(row, c); });
    const T sum =
        rf_row_fold<rf_plus, COLUMNS>((T)0, [=](int c) { return rf_exp(load(row, c) - peak); });
    const T scale = (T)1 / sum;
    rf_row_map<COLUMNS>([=](int c) { store(row, c, rf_exp(load(row, c) - peak) * scale); });
  });
}

template <int ROWS, int COLUMNS, int TASK_ROWS, class L, class S>
RF_DEVICE void rf_log_softmax(int task, L load, S store) {
  rf_each_row<ROWS, TASK_ROWS>(task, [=](int row) {
    using T = decltype(load(0, 0));
    const T peak =
        rf_row_fold<rf_larger, COLUMNS>((T)-RF_INFINITY, [=](int c) { return load(row, c); });
    const T sum =
        rf_row_fold<rf_plus, COLUMNS>((T)0, [=](int c) { return rf_exp(load(row, c) - peak); });
    const T shift = peak + rf_log(sum);
    rf_row_map<COLUMNS>([=](int c) { store(row, c, load(row, c) - shift); });
  });
}

template <int ROWS, int COLUMNS, int TASK_ROWS, class T, class L, class S>
RF_DEVICE void rf_normalize(int task, T epsilon, L load, S store) {
  rf_each_row<ROWS, TASK_ROWS>(task, [=](int row) {
    const T mean =
        rf_row_fold<rf_plus, COLUMNS>((T)0, [=](int c) { return load(row, c); }) / (T)COLUMNS;
    const T spread = rf_row_fold<rf_plus, COLUMNS>((T)0, [=](int c) {
      const T distance = load(row, c) - mean;
      return distance * distance;
    });
    const T scale = (T)1 / rf_sqrt(spread / (T)COLUMNS + epsilon);
    rf_row_map<COLUMNS>([=](int c) { store(row, c, (load(row, c) - mean) * scale); });
  });
}
