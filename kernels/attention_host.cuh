// rf_attend for one core: the keys and values of a block are brought together in the arena, as the
// tiles of registers of rf_contract read them.
#if !defined(RF_SIMT)
enum { RF_FEW_KEYS = 128 };  // at a time, where there are only a few queries

// Columns of a matrix as panels of RF_PANEL, zero beyond the last one; element(row, column).
template <class F>
RF_DEVICE void rf_make_panels(float* panels, int rows, int columns, F element) {
  for (int first = 0; first < columns; first += RF_PANEL) {
    const int width = rf_least(RF_PANEL, columns - first);
    for (int row = 0; row < rows; ++row, panels += RF_PANEL) {
      RF_VECTOR_LOOP
      for (int j = 0; j < RF_PANEL; ++j) panels[j] = j < width ? element(row, first + j) : 0.0f;
    }
  }
}

template <class JOIN, class F>
RF_DEVICE float rf_fold_span(float initial, int count, F value) {
  constexpr int lanes = 16;
  float sums[lanes];
  for (int j = 0; j < lanes; ++j) sums[j] = initial;
  int start = 0;
  for (; start + lanes <= count; start += lanes) {
    RF_VECTOR_LOOP
    for (int j = 0; j < lanes; ++j) sums[j] = JOIN::join(sums[j], value(start + j));
  }
  for (int j = 0; start + j < count; ++j) sums[j] = JOIN::join(sums[j], value(start + j));
  for (int j = 1; j < lanes; ++j) sums[0] = JOIN::join(sums[0], sums[j]);
  return sums[0];
}

// Weights in the place of scores; gives what the sums so far shrink by.
RF_DEVICE float rf_weigh(float* scores, int count, float* peak, float* sum) {
  const float largest = rf_fold_span<rf_larger>(*peak, count, [=](int n) { return scores[n]; });
  RF_VECTOR_LOOP
  for (int n = 0; n < count; ++n) {
    const float score = scores[n], weight = rf_exp(score - largest);
    scores[n] = score == -RF_INFINITY ? 0.0f : weight;
  }
  const float shrink = rf_shrinkage(*peak, largest);
  *peak = largest;
  *sum = *sum * shrink + rf_fold_span<rf_plus>(0.0f, count, [=](int n) { return scores[n]; });
  return shrink;
}

// out += rows times panels, of `columns` columns; rows stand RF_PITCH apart.
template <class H, int BM>
RF_DEVICE void rf_rows_by_panels(const float* a, int rows, int length, const float* panels,
                                 int columns, float* out, int out_pitch, bool first) {
  for (int m = 0, count; m < rows; m += count) {
    count = rf_first_block(rows - m);
    for (int c = 0; c < columns; c += RF_PANEL)
      rf_block_of<H::M, BM>(count, a + m * RF_PITCH, length, panels + c * length,
                            out + m * out_pitch + c, out_pitch, first);
  }
}

// BM rows and BN keys at a time, a multiple of RF_PANEL.
template <class H, int BM, int BN, class Q, class K, class V, class C, class S>
RF_DEVICE void rf_attend_rows(char* arena, int m0, Q queries, K keys, V values, C score, S store) {
  constexpr int OUT = (H::WIDTH + RF_PANEL - 1) / RF_PANEL * RF_PANEL;
  constexpr int PANELS = BN * (H::DEPTH > OUT ? H::DEPTH : OUT);
  static_assert(H::DEPTH <= RF_CHUNK && BN <= RF_CHUNK, "a row has to fit between two others");
  const int rows = rf_least(BM, H::M - m0);
  float* panels = reinterpret_cast<float*>(arena);
  float* rows_q = panels + PANELS;  // [BM][RF_PITCH], as are the weights
  float* weights = rows_q + BM * RF_PITCH;
  float* mixed = weights + BM * RF_PITCH;  // [BM][OUT]
  float peaks[BM], sums[BM];
  for (int m = 0; m < rows; ++m) {
    peaks[m] = -RF_INFINITY;
    sums[m] = 0.0f;
    const auto* from = queries.at(m0 + m);
    RF_VECTOR_LOOP
    for (int d = 0; d < H::DEPTH; ++d) rows_q[m * RF_PITCH + d] = (float)from[d * Q::STEP];
  }
  for (int n0 = 0; n0 < H::N; n0 += BN) {
    const int count = rf_least(BN, H::N - n0);
    rf_make_panels(panels, H::DEPTH, count,
                   [=](int d, int n) { return (float)keys.at(n0 + n)[(rf_size)d * K::STEP]; });
    rf_rows_by_panels<H, BM>(rows_q, rows, H::DEPTH, panels, count, weights, RF_PITCH, true);
    for (int m = 0; m < rows; ++m) {
      float* own = weights + m * RF_PITCH;
      RF_VECTOR_LOOP
      for (int n = 0; n < count; ++n) own[n] = score(m0 + m, n0 + n, own[n]);
      const float shrink = rf_weigh(own, count, peaks + m, sums + m);
      if (n0 == 0) continue;
      RF_VECTOR_LOOP
      for (int c = 0; c < OUT; ++c) mixed[m * OUT + c] *= shrink;
    }
    rf_make_panels(panels, count, H::WIDTH,
                   [=](int n, int c) { return (float)values.at(n0 + n)[(rf_size)c * V::STEP]; });
    rf_rows_by_panels<H, BM>(weights, rows, count, panels, H::WIDTH, mixed, OUT, n0 == 0);
  }
  for (int m = 0; m < rows; ++m) {
    const float scale = 1.0f / sums[m];
    RF_VECTOR_LOOP
    for (int c = 0; c < H::WIDTH; ++c) store(m0 + m, c, mixed[m * OUT + c] * scale);
  }
}

template <class H, class TILE, class HOW, class Q, class K, class V, class C, class S>
RF_DEVICE void rf_attend(char* arena, int tile_m, Q queries, K keys, V values, C score, S store) {
  rf_attend_rows<H, TILE::BM, TILE::BN>(arena, tile_m * TILE::BM, queries, keys, values, score,
                                        store);
}

template <class H, class Q, class K, class V, class C, class S>
RF_DEVICE void rf_attend_few(char* arena, Q queries, K keys, V values, C score, S store) {
  rf_attend_rows<H, H::M, RF_FEW_KEYS>(arena, 0, queries, keys, values, score, store);
}
#endif
