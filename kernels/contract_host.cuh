// rf_contract for one core: a tile of registers goes through panels of B that lie in the order in
// which they are read. A few rows of A are copied before they are multiplied: what is convolved
// lies in short runs, and rows of 4 KB or its multiples would push each other out of the nearest
// cache.
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
#if defined(__AVX2__)
#define RF_BYTES_AS_INTS(instruction) asm(instruction " %1, %0" : "=v"(wide) : "m"(bytes))
#else
#define RF_BYTES_AS_INTS(instruction) wide = __builtin_convertvector(bytes, rf_widths)
#endif
typedef int rf_widths __attribute__((vector_size(RF_WIDTH * 4), aligned(4), may_alias));
RF_DEVICE rf_vector rf_floats(const signed char* from) {
  typedef signed char narrow __attribute__((vector_size(RF_WIDTH), aligned(1), may_alias));
  const narrow& bytes = *(const narrow*)from;
  rf_widths wide;
  RF_BYTES_AS_INTS("vpmovsxbd");
  return __builtin_convertvector(wide, rf_vector);
}
RF_DEVICE rf_vector rf_floats(const unsigned char* from) {
  typedef unsigned char narrow __attribute__((vector_size(RF_WIDTH), aligned(1), may_alias));
  const narrow& bytes = *(const narrow*)from;
  rf_widths wide;
  RF_BYTES_AS_INTS("vpmovzxbd");
  return __builtin_convertvector(wide, rf_vector);
}

// Floats of K that are copied at once, and from one such row to the next.
enum { RF_CHUNK = 384, RF_PITCH = RF_CHUNK + 16, RF_COPIED_ROWS = 12 };
static_assert((int)RF_ROWS <= (int)RF_COPIED_ROWS, "more rows than there is a place for");

// What is copied at once of each row: several short segments, or a piece of a long one.
template <class P>
struct rf_chunks {
  static constexpr int MOST = RF_CHUNK / P::LENGTH > 1 ? RF_CHUNK / P::LENGTH : 1;
  static constexpr int TURNS = (P::SEGMENTS + MOST - 1) / MOST;
  static constexpr int SEGMENTS = (P::SEGMENTS + TURNS - 1) / TURNS;
  static constexpr int PIECES = (P::LENGTH + RF_CHUNK - 1) / RF_CHUNK;
  static constexpr int LENGTH = (P::LENGTH + PIECES - 1) / PIECES;
};

// ROWS x (2 vectors) of the output stay in registers for a chunk. Without `first` the sums go on
// from what an earlier chunk left in `out`. A row or two have several sums side by side, for each
// addition waits for the one before.
template <int ROWS, class W>
RF_DEVICE void rf_register_tile(const float* a, int length, const W* panel, float* out,
                                int out_pitch, bool first) {
  constexpr int CHAINS = ROWS < 3 ? 4 / ROWS : 1;
  rf_vector sums[CHAINS][ROWS][2] = {};
  RF_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    const float* row = out + r * out_pitch;
    if (!first) sums[0][r][0] = *(const rf_vector*)row;
    if (!first) sums[0][r][1] = *(const rf_vector*)(row + RF_WIDTH);
  }
  int k = 0;
  for (; k + CHAINS <= length; k += CHAINS) {
    RF_UNROLL
    for (int c = 0; c < CHAINS; ++c) {
      const rf_vector b0 = rf_floats(panel), b1 = rf_floats(panel + RF_WIDTH);
      RF_UNROLL
      for (int r = 0; r < ROWS; ++r) {
        // minus zero, not plus zero: that is exact, and compilers know it
        const rf_vector value = a[r * RF_PITCH + k + c] - rf_vector{};
        sums[c][r][0] += value * b0;
        sums[c][r][1] += value * b1;
      }
      panel += RF_PANEL;
    }
  }
  for (; CHAINS > 1 && k < length; ++k) {
    const rf_vector b0 = rf_floats(panel), b1 = rf_floats(panel + RF_WIDTH);
    RF_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      const rf_vector value = a[r * RF_PITCH + k] - rf_vector{};
      sums[0][r][0] += value * b0;
      sums[0][r][1] += value * b1;
    }
    panel += RF_PANEL;
  }
  RF_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    RF_UNROLL
    for (int c = 1; c < CHAINS; ++c) {
      sums[0][r][0] += sums[c][r][0];
      sums[0][r][1] += sums[c][r][1];
    }
    *(rf_vector*)(out + r * out_pitch) = sums[0][r][0];
    *(rf_vector*)(out + r * out_pitch + RF_WIDTH) = sums[0][r][1];
  }
}

template <int ROWS, class W>
static __attribute__((noinline)) void rf_row_block(const float* a, int length, const W* panel,
                                                   float* out, int out_pitch, bool first) {
  for (int column = 0; column < RF_PANEL; column += 2 * RF_WIDTH)
    rf_register_tile<ROWS>(a, length, panel + column, out + column, out_pitch, first);
}

// Rows are cut into blocks of nearly the same size, which are two sizes at most.
RF_DEVICE constexpr int rf_first_block(int rows) {
  const int blocks = (rows + RF_ROWS - 1) / RF_ROWS;
  return blocks ? (rows + blocks - 1) / blocks : 0;
}
RF_DEVICE constexpr bool rf_has_block(int rows, int size) {
  const int blocks = (rows + RF_ROWS - 1) / RF_ROWS;
  return blocks && (size == rows / blocks || size == rf_first_block(rows));
}

// The block of so many rows, out of those that tiles of BM out of M rows have.
template <int M, int BM, int ROWS = RF_ROWS, class W>
RF_DEVICE void rf_block_of(int rows, const float* a, int length, const W* panel, float* out,
                           int out_pitch, bool first) {
  if constexpr ((M >= BM && rf_has_block(BM, ROWS)) || rf_has_block(M % BM, ROWS))
    if (rows == ROWS) return rf_row_block<ROWS>(a, length, panel, out, out_pitch, first);
  if constexpr (ROWS > 1)
    rf_block_of<M, BM, ROWS - 1>(rows, a, length, panel, out, out_pitch, first);
}

// Where the runs of each row start.
template <class P, int BM, class R>
RF_DEVICE void rf_find_runs(R row, int m0, int rows, const typename P::A** runs) {
  static const typename P::A zeros[P::STEP == 1 ? P::LENGTH : 1] = {};
  for (int m = 0; m < rows; ++m) {
    _Pragma("GCC unroll 64") for (int s = 0; s < P::SEGMENTS; ++s) {
      const auto* run = row(m0 + m, s);
      runs[s * BM + m] = run ? run : zeros;
    }
  }
}

template <class P, int BM>
RF_DEVICE void rf_copy_rows(const typename P::A* const* runs, int rows, int segments, int start,
                            int length, float* to) {
  constexpr bool IS_WHOLE = rf_chunks<P>::PIECES == 1;
  for (int s = 0; s < segments; ++s) {
    for (int m = 0; m < rows; ++m) {
      const auto* from = runs[s * BM + m] + (rf_size)start * P::STEP;
      float* row = to + m * RF_PITCH + s * P::LENGTH;
      const int count = IS_WHOLE ? P::LENGTH : length;
      RF_VECTOR_LOOP
      for (int k = 0; k < count; ++k) row[k] = (float)from[(rf_size)k * P::STEP];
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

template <int COLUMNS, class S>
RF_DEVICE void rf_store_row(S store, int m, int n0, const float* sums) {
  RF_VECTOR_LOOP
  for (int n = 0; n < COLUMNS; ++n) store(m, n0 + n, sums[n]);
}

template <class P, class TILE, class HOW, class R, class B, class S>
RF_DEVICE void rf_contract(char* arena, int tile_m, int tile_n, R row, B b, S store) {
  constexpr int BM = TILE::BM, BN = TILE::BN, LAST = P::N % BN;
  const int m0 = tile_m * BM, n0 = tile_n * BN;
  const int rows = rf_least(BM, P::M - m0), columns = rf_least(BN, P::N - n0);
  float* sums = reinterpret_cast<float*>(arena);  // [BM][BN]
  float* copied = sums + BM * BN;                 // [RF_ROWS][RF_PITCH]
  const auto** runs =
      (const typename P::A**)(copied + RF_COPIED_ROWS * RF_PITCH);  // [SEGMENTS][BM]
  float* packing = (float*)(runs + (rf_size)P::SEGMENTS * BM);      // [BN / RF_PANEL][K][RF_PANEL]
  rf_find_runs<P, BM>(row, m0, rows, runs);
  if (!B::IS_WIDE) rf_pack_columns<P>(b, n0, columns, packing);
  using C = rf_chunks<P>;
  for (int s = 0; s < P::SEGMENTS; s += C::SEGMENTS) {
    const int segments = rf_least(C::SEGMENTS, P::SEGMENTS - s);
    for (int k = 0; k < P::LENGTH; k += C::LENGTH) {
      const int length = rf_least(C::LENGTH, P::LENGTH - k);
      const bool is_first = s == 0 && k == 0;
      const bool is_last = s + C::SEGMENTS >= P::SEGMENTS && k + C::LENGTH >= P::LENGTH;
      for (int m = 0, count; m < rows; m += count) {
        count = rf_first_block(rows - m);
        rf_copy_rows<P, BM>(runs + s * BM + m, count, segments, k, length, copied);
        for (int column = 0; column < columns; column += RF_PANEL) {
          const rf_size at = ((rf_size)s * P::LENGTH + k) * RF_PANEL;
          const auto block = [&](const auto* panel) {
            rf_block_of<P::M, BM>(count, copied, segments * length, panel + at,
                                  sums + m * BN + column, BN, is_first);
          };
          if constexpr (B::IS_WIDE)
            block(B::panel(b, (n0 + column) / RF_PANEL));
          else
            block(packing + (rf_size)(column / RF_PANEL) * P::K * RF_PANEL);
        }
        for (int r = m; is_last && r < m + count; ++r) {
          if (P::N >= BN && columns == BN) rf_store_row<BN>(store, m0 + r, n0, sums + r * BN);
          if (LAST && columns == LAST) rf_store_row<LAST>(store, m0 + r, n0, sums + r * BN);
        }
      }
    }
  }
}

template <class P, int PANELS, class R, class B, class S>
RF_DEVICE void rf_contract_few(char* arena, int tile_n, R row, B b, S store) {
  rf_contract<P, rf_tile<P::M, PANELS * RF_PANEL, 8, 2, 1, 1>, rf_plain>(arena, 0, tile_n, row, b,
                                                                         store);
}
#endif
