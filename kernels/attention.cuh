// Attention: store(m, c, sum over n of weight(m, n) * value(n, c)), where the weights of a row are
// the softmax over n of score(m, n, sum over d of query(m, d) * key(n, d)).
//
// Neither scores nor weights ever leave a block: it goes over the keys in blocks, keeps the largest
// score so far of each row, and scales down what it has summed when a larger one comes.
template <class T, int M_, int N_, int DEPTH_, int WIDTH_>
struct rf_heads {
  using Element = T;
  static constexpr int M = M_, N = N_, DEPTH = DEPTH_, WIDTH = WIDTH_;
  static constexpr int VECTOR = 16 / (int)sizeof(T);
};

// Rows whose elements lie STEP apart. Of each row TOGETHER elements lie on a boundary of their size
// and can be copied at once.
template <int STEP_, int TOGETHER_, class F>
struct rf_rows {
  F at;
  static constexpr int STEP = STEP_, TOGETHER = TOGETHER_;
};
template <int STEP, int TOGETHER, class F>
RF_DEVICE rf_rows<STEP, TOGETHER, F> rf_make_rows(F at) {
  return rf_rows<STEP, TOGETHER, F>{at};
}

// BM rows and BN keys at a time. The warps share the scores as WARPS_M x WARPS_N, and the sums, of
// which OUT columns are made, as OUT_M x OUT_N.
template <int BM_, int BN_, int WARPS_M_, int WARPS_N_, int OUT_, int OUT_M_, int OUT_N_>
struct rf_attention_tile {
  static constexpr int BM = BM_, BN = BN_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_;
  static constexpr int OUT = OUT_, OUT_M = OUT_M_, OUT_N = OUT_N_;
};

// The factor by which sums shrink when the largest score goes from one value to another; none of
// either kind has been seen while both are minus infinity.
RF_DEVICE float rf_shrinkage(float before, float now) {
  return before == now ? 1.0f : rf_exp(before - now);
}
