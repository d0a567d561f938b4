// Rows that need their own statistics: softmax, log-softmax and normalisation to mean 0 and
// variance 1. load(row, column) gives an element, store(row, column, value) takes the result.
template <int COLUMNS, class T, class L>
RF_DEVICE T rf_exp_sum(int row, T peak, L load) {
  return rf_row_fold<rf_plus, COLUMNS>((T)0, [=](int c) { return rf_exp(load(row, c) - peak); });
}

template <int COLUMNS, class L>
RF_DEVICE auto rf_peak(int row, L load) {
  using T = decltype(load(0, 0));
  return rf_row_fold<rf_larger, COLUMNS>((T)-RF_INFINITY, [=](int c) { return load(row, c); });
}

template <int ROWS, int COLUMNS, int TASK_ROWS, class L, class S>
RF_DEVICE void rf_softmax(int task, L load, S store) {
  rf_each_row<ROWS, TASK_ROWS>(task, [=](int row) {
    const auto peak = rf_peak<COLUMNS>(row, load);
    const auto scale = 1 / rf_exp_sum<COLUMNS>(row, peak, load);
    rf_row_map<COLUMNS>([=](int c) { store(row, c, rf_exp(load(row, c) - peak) * scale); });
  });
}

template <int ROWS, int COLUMNS, int TASK_ROWS, class L, class S>
RF_DEVICE void rf_log_softmax(int task, L load, S store) {
  rf_each_row<ROWS, TASK_ROWS>(task, [=](int row) {
    const auto peak = rf_peak<COLUMNS>(row, load);
    const auto shift = peak + rf_log(rf_exp_sum<COLUMNS>(row, peak, load));
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
