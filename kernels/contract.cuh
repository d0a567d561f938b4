// Matrix products of every kind: store(m, n, sum over k of A(m, k) * B(k, n)) for one tile of the
// output.
//
// K is SEGMENTS runs of LENGTH elements that lie STEP apart, so a convolution is the same loop as a
// matrix product: row(m, segment) is where the run of row m starts, or null where it is padding. B
// comes as a source with packed panels of RF_PANEL columns (weights), or as a function of (k, n)
// that is packed on the way.
enum { RF_PANEL = 32, RF_DEPTH = 16 };

template <int M_, int N_, int SEGMENTS_, int LENGTH_, int STEP_>
struct rf_problem {
  static constexpr int M = M_, N = N_, SEGMENTS = SEGMENTS_, LENGTH = LENGTH_, STEP = STEP_;
  static constexpr int K = SEGMENTS * LENGTH;
};

// Weights as [panel][k][RF_PANEL], columns beyond N zero.
template <int K>
struct rf_packed {
  const float* panels;
  static constexpr bool is_packed = true;
  RF_DEVICE float at(const rf_packed& b, int k, int n) {
    return b.panels[((rf_size)(n / RF_PANEL) * K + k) * RF_PANEL + n % RF_PANEL];
  }
  RF_DEVICE const float* panel(const rf_packed& b, int p) {
    return b.panels + (rf_size)p * K * RF_PANEL;
  }
};

template <class F>
struct rf_dense {
  F element;
  static constexpr bool is_packed = false;
  RF_DEVICE float at(const rf_dense& b, int k, int n) { return b.element(k, n); }
  RF_DEVICE const float* panel(const rf_dense&, int) { return nullptr; }
};
template <class F>
RF_DEVICE rf_dense<F> rf_make_dense(F element) {
  return rf_dense<F>{element};
}

#if defined(RF_SIMT)
// The threads stand in rows of 16, and each keeps a patch of the tile; both operands go through the
// arena, RF_DEPTH of K at a time.
template <class P, int BM, int BN, class R, class B, class S>
RF_DEVICE void rf_contract(char* arena, int tile_m, int tile_n, R row, B b, S store) {
  constexpr int ROWS = RF_THREADS / 16, TM = BM / ROWS, TN = BN / 16;
  float* a_tile =
      reinterpret_cast<float*>(arena);  // [RF_DEPTH][BM + 1]: the odd pitch keeps banks apart
  float* b_tile = a_tile + RF_DEPTH * (BM + 1);  // [RF_DEPTH][BN]
  const int m0 = tile_m * BM, n0 = tile_n * BN;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  float sums[TM][TN];
  RF_UNROLL
  for (int i = 0; i < TM; ++i) {
    RF_UNROLL
    for (int j = 0; j < TN; ++j) sums[i][j] = 0.0f;
  }
  for (int k0 = 0; k0 < P::K; k0 += RF_DEPTH) {
    for (int i = threadIdx.x; i < BM * RF_DEPTH; i += RF_THREADS) {
      const int k = k0 + i % RF_DEPTH, m = i / RF_DEPTH;
      float value = 0.0f;
      if (k < P::K && m0 + m < P::M) {
        const float* run = row(m0 + m, k / P::LENGTH);
        if (run) {
          RF_GLOBAL(run);  // it may come out of a choice, where the compiler loses track
          value = run[(rf_size)(k % P::LENGTH) * P::STEP];
        }
      }
      a_tile[(i % RF_DEPTH) * (BM + 1) + m] = value;
    }
    for (int i = threadIdx.x; i < BN * RF_DEPTH; i += RF_THREADS) {
      const int k = k0 + i / BN, n = n0 + i % BN;
      b_tile[i] = k < P::K && n < P::N ? B::at(b, k, n) : 0.0f;
    }
    rf_sync();
    RF_UNROLL
    for (int k = 0; k < RF_DEPTH; ++k) {
      float a_part[TM], b_part[TN];
      RF_UNROLL
      for (int i = 0; i < TM; ++i) a_part[i] = a_tile[k * (BM + 1) + ty + i * ROWS];
      RF_UNROLL
      for (int j = 0; j < TN; ++j) b_part[j] = b_tile[k * BN + tx + j * 16];
      RF_UNROLL
      for (int i = 0; i < TM; ++i) {
        RF_UNROLL
        for (int j = 0; j < TN; ++j) sums[i][j] += a_part[i] * b_part[j];
      }
    }
    rf_sync();
  }
  RF_UNROLL
  for (int i = 0; i < TM; ++i) {
    const int m = m0 + ty + i * ROWS;
    RF_UNROLL
    for (int j = 0; j < TN; ++j) {
      const int n = n0 + tx + j * 16;
      if (m < P::M && n < P::N) store(m, n, sums[i][j]);
    }
  }
}
#else
#if defined(__AVX512F__)
enum { RF_WIDTH = 16, RF_ROWS = 12 };
#elif defined(__AVX__)
enum { RF_WIDTH = 8, RF_ROWS = 6 };
#else
enum { RF_WIDTH = 4, RF_ROWS = 4 };
#endif
typedef float rf_vector __attribute__((vector_size(RF_WIDTH * 4), aligned(4), may_alias));

// K is worked off in chunks whose part of a panel stays in the nearest cache: several short
// segments, or a piece of a long one.
template <class P>
struct rf_chunks {
  static constexpr int DEEPEST = 384;
  static constexpr int SEGMENTS = P::LENGTH >= DEEPEST ? 1 : (DEEPEST + P::LENGTH - 1) / P::LENGTH;
  static constexpr int PIECES = (P::LENGTH + DEEPEST - 1) / DEEPEST;
  static constexpr int LENGTH = (P::LENGTH + PIECES - 1) / PIECES;
};

// ROWS x (2 vectors) of the output stay in registers for a chunk; `runs` points at the first row's
// runs. Without `first` the sums go on from what an earlier chunk left in `out`.
template <class P, int PITCH, int ROWS>
RF_DEVICE void rf_register_tile(const float* const* runs, int segments, int start, int length,
                                const float* panel, float* out, int out_pitch, bool first) {
  rf_vector sums[ROWS][2];
  RF_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    const float* row = out + r * out_pitch;
    sums[r][0] = first ? rf_vector{} : *(const rf_vector*)row;
    sums[r][1] = first ? rf_vector{} : *(const rf_vector*)(row + RF_WIDTH);
  }
  for (int s = 0; s < segments; ++s) {
    const float* a[ROWS];
    RF_UNROLL
    for (int r = 0; r < ROWS; ++r) a[r] = runs[s * PITCH + r] + (rf_size)start * P::STEP;
    for (int k = 0; k < length; ++k) {
      const rf_vector b0 = *(const rf_vector*)panel, b1 = *(const rf_vector*)(panel + RF_WIDTH);
      RF_UNROLL
      for (int r = 0; r < ROWS; ++r) {
        // minus zero, not plus zero: that is exact, and compilers know it
        const rf_vector value = a[r][(rf_size)k * P::STEP] - rf_vector{};
        sums[r][0] += value * b0;
        sums[r][1] += value * b1;
      }
      panel += RF_PANEL;
    }
  }
  RF_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    *(rf_vector*)(out + r * out_pitch) = sums[r][0];
    *(rf_vector*)(out + r * out_pitch + RF_WIDTH) = sums[r][1];
  }
}

template <class P, int PITCH, int ROWS>
static __attribute__((noinline)) void rf_row_block(const float* const* runs, int segments,
                                                   int start, int length, const float* panel,
                                                   float* out, int out_pitch, bool first) {
  for (int column = 0; column < RF_PANEL; column += 2 * RF_WIDTH)
    rf_register_tile<P, PITCH, ROWS>(runs, segments, start, length, panel + column, out + column,
                                     out_pitch, first);
}

// One chunk of K for one panel: all rows of the tile.
template <class P, int PITCH>
RF_DEVICE void rf_panel_chunk(const float* const* runs, int segments, int start, int length,
                              const float* panel, float* out, int out_pitch, int rows, bool first) {
  int m = 0;
  for (; m + RF_ROWS <= rows; m += RF_ROWS)
    rf_row_block<P, PITCH, RF_ROWS>(runs + m, segments, start, length, panel, out + m * out_pitch,
                                    out_pitch, first);
  for (; m + 4 <= rows; m += 4)
    rf_row_block<P, PITCH, 4>(runs + m, segments, start, length, panel, out + m * out_pitch,
                              out_pitch, first);
  for (; m < rows; ++m)
    rf_row_block<P, PITCH, 1>(runs + m, segments, start, length, panel, out + m * out_pitch,
                              out_pitch, first);
}

template <class P, int BM, int BN, class R, class B, class S>
RF_DEVICE void rf_contract(char* arena, int tile_m, int tile_n, R row, B b, S store) {
  static const float zeros[P::STEP == 1 ? P::LENGTH : 1] = {};
  const int m0 = tile_m * BM, n0 = tile_n * BN;
  const int rows = rf_least(BM, P::M - m0), columns = rf_least(BN, P::N - n0);
  float* sums = reinterpret_cast<float*>(arena);                // [BM][BN]
  const float** runs = (const float**)(sums + BM * BN);         // [SEGMENTS][BM]
  float* packing = (float*)(runs + (rf_size)P::SEGMENTS * BM);  // [BN / RF_PANEL][K][RF_PANEL]
  for (int s = 0; s < P::SEGMENTS; ++s) {
    for (int m = 0; m < rows; ++m) {
      const float* run = row(m0 + m, s);
      runs[s * BM + m] = run ? run : zeros;
    }
  }
  if (!B::is_packed) {
    for (int column = 0; column < columns; column += RF_PANEL) {
      const int width = rf_least(RF_PANEL, columns - column);
      float* panel = packing + (rf_size)(column / RF_PANEL) * P::K * RF_PANEL;
      for (int k = 0; k < P::K; ++k) {
        RF_VECTOR_LOOP
        for (int j = 0; j < RF_PANEL; ++j)
          panel[k * RF_PANEL + j] = j < width ? B::at(b, k, n0 + column + j) : 0.0f;
      }
    }
  }
  using C = rf_chunks<P>;
  for (int s = 0; s < P::SEGMENTS; s += C::SEGMENTS) {
    const int segments = rf_least(C::SEGMENTS, P::SEGMENTS - s);
    for (int k = 0; k < P::LENGTH; k += C::LENGTH) {
      const int length = rf_least(C::LENGTH, P::LENGTH - k);
      for (int column = 0; column < columns; column += RF_PANEL) {
        const float* panel = B::is_packed
                                 ? B::panel(b, (n0 + column) / RF_PANEL)
                                 : packing + (rf_size)(column / RF_PANEL) * P::K * RF_PANEL;
        rf_panel_chunk<P, BM>(runs + s * BM, segments, k, length,
                              panel + ((rf_size)s * P::LENGTH + k) * RF_PANEL, sums + column, BN,
                              rows, s == 0 && k == 0);
      }
    }
  }
  for (int m = 0; m < rows; ++m) {
    RF_VECTOR_LOOP
    for (int n = 0; n < columns; ++n) store(m0 + m, n0 + n, sums[m * BN + n]);
  }
}
#endif
