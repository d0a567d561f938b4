// rf_contract for one core: a tile of registers goes through panels of B that lie in the order in
// which they are read. What does not lie so, and rows that are no floats, are brought into the
// arena first.
#if !defined(RF_SIMT)
struct rf_plain {};
template <class P>
struct rf_widened {};
template <rf_factors FACTORS>
struct rf_matrix {};

#if defined(__AVX512F__)
enum { RF_WIDTH = 16, RF_ROWS = 12 };
#elif defined(__AVX__)
enum { RF_WIDTH = 8, RF_ROWS = 6 };
#else
enum { RF_WIDTH = 4, RF_ROWS = 4 };
#endif
typedef float rf_vector __attribute__((vector_size(RF_WIDTH * 4), aligned(4), may_alias));

// As many numbers as a vector has, as floats.
RF_DEVICE rf_vector rf_floats(const float* from) { return *(const rf_vector*)from; }
template <class T>
RF_DEVICE rf_vector rf_floats(const T* from) {
  return T::template widened<RF_WIDTH>(from);
}

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
// runs. Without `first` the sums go on from what an earlier chunk left in `out`. A single row has
// several sums side by side, for each addition waits for the one before.
template <class P, int PITCH, int ROWS, class W>
RF_DEVICE void rf_register_tile(const float* const* runs, int segments, int start, int length,
                                const W* panel, float* out, int out_pitch, bool first) {
  constexpr int CHAINS = ROWS == 1 ? 4 : 1;
  rf_vector sums[ROWS * CHAINS][2] = {};
  RF_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    const float* row = out + r * out_pitch;
    if (!first) sums[r][0] = *(const rf_vector*)row;
    if (!first) sums[r][1] = *(const rf_vector*)(row + RF_WIDTH);
  }
  for (int s = 0; s < segments; ++s) {
    const float* a[ROWS];
    RF_UNROLL
    for (int r = 0; r < ROWS; ++r) a[r] = runs[s * PITCH + r] + (rf_size)start * P::STEP;
    int k = 0;
    for (; CHAINS > 1 && k + CHAINS <= length; k += CHAINS) {
      RF_UNROLL
      for (int c = 0; c < CHAINS; ++c) {
        const rf_vector value = a[0][(rf_size)(k + c) * P::STEP] - rf_vector{};
        sums[c][0] += value * rf_floats(panel);
        sums[c][1] += value * rf_floats(panel + RF_WIDTH);
        panel += RF_PANEL;
      }
    }
    for (; k < length; ++k) {
      const rf_vector b0 = rf_floats(panel), b1 = rf_floats(panel + RF_WIDTH);
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
  for (int c = 1; c < CHAINS; ++c) {
    sums[0][0] += sums[c][0];
    sums[0][1] += sums[c][1];
  }
  RF_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    *(rf_vector*)(out + r * out_pitch) = sums[r][0];
    *(rf_vector*)(out + r * out_pitch + RF_WIDTH) = sums[r][1];
  }
}

template <class P, int PITCH, int ROWS, class W>
static __attribute__((noinline)) void rf_row_block(const float* const* runs, int segments,
                                                   int start, int length, const W* panel,
                                                   float* out, int out_pitch, bool first) {
  for (int column = 0; column < RF_PANEL; column += 2 * RF_WIDTH)
    rf_register_tile<P, PITCH, ROWS>(runs, segments, start, length, panel + column, out + column,
                                     out_pitch, first);
}

// One chunk of K for one panel: all rows of the tile.
template <class P, int PITCH, class W>
RF_DEVICE void rf_panel_chunk(const float* const* runs, int segments, int start, int length,
                              const W* panel, float* out, int out_pitch, int rows, bool first) {
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

// What the loops see of a problem. Rows that are no floats, or many short runs, are brought
// together in the arena first, and are one run then.
template <class P>
struct rf_gathered {
  static constexpr bool IS_FLOAT = sizeof(typename P::A) == 4;
  static constexpr bool IS_COPY = !IS_FLOAT || (P::SEGMENTS > 1 && P::LENGTH < 8);
  static constexpr int K = P::K, SEGMENTS = IS_COPY ? 1 : P::SEGMENTS;
  static constexpr int LENGTH = K / SEGMENTS, STEP = IS_COPY ? 1 : P::STEP;
};

// Where the runs of each row start.
template <class P, int BM, class R>
RF_DEVICE void rf_find_runs(R row, int m0, int rows, const float** runs, float* gathered) {
  static const float zeros[P::STEP == 1 ? P::LENGTH : 1] = {};
  if constexpr (rf_gathered<P>::IS_COPY) {
    for (int m = 0; m < rows; ++m) {
      float* to = gathered + (rf_size)m * P::K;
      runs[m] = to;
      for (int s = 0; s < P::SEGMENTS; ++s, to += P::LENGTH) {
        const auto* run = row(m0 + m, s);
        for (int k = 0; k < P::LENGTH; ++k) to[k] = run ? (float)run[(rf_size)k * P::STEP] : 0.0f;
      }
    }
  } else {
    for (int s = 0; s < P::SEGMENTS; ++s) {
      for (int m = 0; m < rows; ++m) {
        const float* run = row(m0 + m, s);
        runs[s * BM + m] = run ? run : zeros;
      }
    }
  }
}

// [columns / RF_PANEL][K][RF_PANEL] of what does not lie so.
template <class P, class B>
RF_DEVICE void rf_pack_columns(B b, int n0, int columns, float* packing) {
  for (int column = 0; column < columns; column += RF_PANEL) {
    const int width = rf_least(RF_PANEL, columns - column);
    float* panel = packing + (rf_size)(column / RF_PANEL) * P::K * RF_PANEL;
    for (int k = 0; k < P::K; ++k) {
      RF_VECTOR_LOOP
      for (int j = 0; j < RF_PANEL; ++j)
        panel[k * RF_PANEL + j] = j < width ? (float)*B::at(b, k, n0 + column + j) : 0.0f;
    }
  }
}

template <class P, class TILE, class HOW, class R, class B, class S>
RF_DEVICE void rf_contract(char* arena, int tile_m, int tile_n, R row, B b, S store) {
  constexpr int BM = TILE::BM, BN = TILE::BN;
  using F = rf_gathered<P>;
  const int m0 = tile_m * BM, n0 = tile_n * BN;
  const int rows = rf_least(BM, P::M - m0), columns = rf_least(BN, P::N - n0);
  float* sums = reinterpret_cast<float*>(arena);                // [BM][BN]
  const float** runs = (const float**)(sums + BM * BN);         // [SEGMENTS][BM]
  float* packing = (float*)(runs + (rf_size)P::SEGMENTS * BM);  // [BN / RF_PANEL][K][RF_PANEL]
  rf_find_runs<P, BM>(row, m0, rows, runs, packing + (B::IS_WIDE ? 0 : (rf_size)BN * P::K));
  if (!B::IS_WIDE) rf_pack_columns<P>(b, n0, columns, packing);
  using C = rf_chunks<F>;
  for (int s = 0; s < F::SEGMENTS; s += C::SEGMENTS) {
    const int segments = rf_least(C::SEGMENTS, F::SEGMENTS - s);
    for (int k = 0; k < F::LENGTH; k += C::LENGTH) {
      const int length = rf_least(C::LENGTH, F::LENGTH - k);
      for (int column = 0; column < columns; column += RF_PANEL) {
        const rf_size at = ((rf_size)s * F::LENGTH + k) * RF_PANEL;
        const auto panel_chunk = [&](const auto* panel) {
          rf_panel_chunk<F, BM>(runs + s * BM, segments, k, length, panel + at, sums + column, BN,
                                rows, s == 0 && k == 0);
        };
        if constexpr (B::IS_WIDE)
          panel_chunk(B::panel(b, (n0 + column) / RF_PANEL));
        else
          panel_chunk(packing + (rf_size)(column / RF_PANEL) * P::K * RF_PANEL);
      }
    }
  }
  for (int m = 0; m < rows; ++m) {
    RF_VECTOR_LOOP
    for (int n = 0; n < columns; ++n) store(m0 + m, n0 + n, sums[m * BN + n]);
  }
}

template <class P, int PANELS, class R, class B, class S>
RF_DEVICE void rf_contract_few(char* arena, int tile_n, R row, B b, S store) {
  rf_contract<P, rf_tile<P::M, PANELS * RF_PANEL, 8, 2, 1, 1>, rf_plain>(arena, 0, tile_n, row, b,
                                                                         store);
}
#endif
