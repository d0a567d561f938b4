// rf_contract for a block of threads. Both operands go through the arena, a stage ahead of each
// other: while one stage is multiplied, the next ones are on their way.
#if defined(RF_SIMT)
struct alignas(16) rf_chunk {
  unsigned words[4];
};

// What of K a stage holds, and in how many chunks of either factor.
template <class P, class TILE>
struct rf_stage {
  static constexpr int DEPTH =
      TILE::CHUNKS * (P::VECTOR_A < P::VECTOR_B ? P::VECTOR_A : P::VECTOR_B);
  static constexpr int A_CHUNKS = DEPTH / P::VECTOR_A, B_CHUNKS = DEPTH / P::VECTOR_B;
};

template <class T, int COUNT>
struct alignas(COUNT * sizeof(T) < 16 ? COUNT * sizeof(T) : 16) rf_numbers {
  T of[COUNT];
};

// Some neighbours along K, up to a chunk, to where they belong in a stage. FILL is there otherwise.
template <class T, int COUNT, int FILL = 0>
RF_DEVICE void rf_bring(rf_chunk* stage, int chunk, int place, const T* from, bool present) {
  T* to = reinterpret_cast<T*>(stage + chunk) + place;
  if constexpr (FILL != 0) {
    if (!present) {
      rf_numbers<T, COUNT> filled;
      RF_UNROLL
      for (int i = 0; i < COUNT; ++i) filled.of[i] = (T)FILL;
      *reinterpret_cast<rf_numbers<T, COUNT>*>(to) = filled;
      return;
    }
  }
  if (COUNT * sizeof(T) >= 4) {
    rf_copy<COUNT * sizeof(T) >= 4 ? COUNT * (int)sizeof(T) : 4>(to, from, present);
  } else {
    RF_UNROLL
    for (int i = 0; i < COUNT; ++i) to[i] = present ? from[i] : T{};
  }
}

// A thread brings the same columns of K for rows that stand STRIDE apart.
template <class P, class TILE, class R>
struct rf_loader_a {
  using T = typename P::A;
  static constexpr int COUNT = P::TOGETHER, DEPTH = rf_stage<P, TILE>::DEPTH;
  static constexpr int ACROSS = DEPTH / COUNT, STRIDE = RF_THREADS / ACROSS;
  static constexpr int ROWS = (TILE::BM + STRIDE - 1) / STRIDE;
  const R& row;
  int m0, first, column, segment, position;
  const T* runs[ROWS];

  RF_MEMBER rf_loader_a(const R& row_, int m0_)
      : row(row_),
        m0(m0_),
        first((int)threadIdx.x / ACROSS),
        column((int)threadIdx.x % ACROSS * COUNT),
        segment(column / P::LENGTH),
        position(column % P::LENGTH) {
    find();
  }
  RF_MEMBER void find() {
    RF_UNROLL
    for (int i = 0; i < ROWS; ++i) {
      const int m = m0 + first + i * STRIDE;
      runs[i] = m < P::M && segment < P::SEGMENTS ? row(m, segment) : nullptr;
    }
  }
  RF_MEMBER void load(rf_chunk* stage) {
    RF_UNROLL
    for (int i = 0; i < ROWS; ++i) {
      const int m = first + i * STRIDE;
      if (TILE::BM % STRIDE && m >= TILE::BM) break;
      const T* from = runs[i] + (rf_size)position * P::STEP;
      const int chunk = column / P::VECTOR_A * TILE::PITCH_A + m;
      const bool present = runs[i] != nullptr;
      rf_bring<T, COUNT, P::FILL>(stage, chunk, column % P::VECTOR_A, from, present);
    }
    position += DEPTH;
    if (position < P::LENGTH) return;
    segment += position / P::LENGTH;
    position %= P::LENGTH;
    find();
  }
};

template <class P, class TILE, class B, rf_source SOURCE>
struct rf_loader_b;

// Panels: a thread brings chunks of the same column.
template <class P, class TILE, class B>
struct rf_loader_b<P, TILE, B, RF_FROM_PANELS> {
  using T = typename P::B;
  static constexpr int CHUNKS = rf_stage<P, TILE>::B_CHUNKS, STRIDE = RF_THREADS / TILE::BN;
  static constexpr int COUNT = (CHUNKS + STRIDE - 1) / STRIDE;
  static constexpr int PANELS = (P::N + RF_PANEL - 1) / RF_PANEL;
  const T* from;
  int n, chunk, left;  // chunks of the panel that are left; none in a column that does not exist

  RF_MEMBER rf_loader_b(const B& b, int n0)
      : n((int)threadIdx.x % TILE::BN), chunk((int)threadIdx.x / TILE::BN) {
    const int panel = (n0 + n) / RF_PANEL;
    from = B::panel(b, panel) + (chunk * RF_PANEL + n % RF_PANEL) * P::VECTOR_B;
    left = panel < PANELS ? B::DEPTH - chunk : 0;
  }
  RF_MEMBER void load(rf_chunk* stage) {
    RF_UNROLL
    for (int i = 0; i < COUNT; ++i) {
      if (CHUNKS % STRIDE && chunk + i * STRIDE >= CHUNKS) break;
      rf_copy<16>(stage + (chunk + i * STRIDE) * TILE::PITCH_B + n,
                  from + i * STRIDE * RF_PANEL * P::VECTOR_B, i * STRIDE < left);
    }
    from += CHUNKS * RF_PANEL * P::VECTOR_B;
    left -= CHUNKS;
  }
};

// Neighbouring threads bring neighbours along K of one column.
template <class P, class TILE, class B>
struct rf_loader_b<P, TILE, B, RF_ALONG_K> {
  using T = typename P::B;
  static constexpr int DEPTH = rf_stage<P, TILE>::DEPTH, ACROSS = DEPTH / B::TOGETHER;
  static constexpr int STRIDE = RF_THREADS / ACROSS;
  static constexpr int COLUMNS = (TILE::BN + STRIDE - 1) / STRIDE;
  const B& b;
  int n0, first, place, k0;

  RF_MEMBER rf_loader_b(const B& b_, int n0_)
      : b(b_),
        n0(n0_),
        first((int)threadIdx.x / ACROSS),
        place((int)threadIdx.x % ACROSS * B::TOGETHER),
        k0(0) {}
  RF_MEMBER void load(rf_chunk* stage) {
    RF_UNROLL
    for (int i = 0; i < COLUMNS; ++i) {
      const int n = first + i * STRIDE;
      if (TILE::BN % STRIDE && n >= TILE::BN) break;
      const bool present = k0 + place < P::K && n0 + n < P::N;
      const T* from = present ? B::at(b, k0 + place, n0 + n) : nullptr;
      const int chunk = place / P::VECTOR_B * TILE::PITCH_B + n;
      rf_bring<T, B::TOGETHER>(stage, chunk, place % P::VECTOR_B, from, present);
    }
    k0 += DEPTH;
  }
};

template <class P, class TILE, class B>
struct rf_loader_b<P, TILE, B, RF_ELEMENTS> {
  using T = typename P::B;
  static constexpr int DEPTH = rf_stage<P, TILE>::DEPTH, STRIDE = RF_THREADS / TILE::BN;
  const B& b;
  int n0, n, first, k0;

  RF_MEMBER rf_loader_b(const B& b_, int n0_)
      : b(b_), n0(n0_), n((int)threadIdx.x % TILE::BN), first((int)threadIdx.x / TILE::BN), k0(0) {}
  RF_MEMBER void load(rf_chunk* stage) {
    RF_UNROLL
    for (int k = first; k < DEPTH; k += STRIDE) {
      const bool present = k0 + k < P::K && n0 + n < P::N;
      const T* from = present ? B::at(b, k0 + k, n0 + n) : nullptr;
      rf_bring<T, 1>(stage, k / P::VECTOR_B * TILE::PITCH_B + n, k % P::VECTOR_B, from, present);
    }
    k0 += DEPTH;
  }
};

// Which part of the tile a warp makes, and which chunks it takes.
template <class TILE>
struct rf_warp_place {
  int m, n, group, lane;
  RF_MEMBER rf_warp_place() {
    const int warp = (int)threadIdx.x / 32, of_tile = warp % (TILE::WARPS_M * TILE::WARPS_N);
    m = of_tile / TILE::WARPS_N * TILE::WM;
    n = of_tile % TILE::WARPS_N * TILE::WN;
    group = warp / (TILE::WARPS_M * TILE::WARPS_N);
    lane = (int)threadIdx.x % 32;
  }
};

// Four of K, number `step` of a row or column whose chunks stand PITCH apart.
template <class T, int PITCH>
RF_DEVICE rf_numbers<float, 4> rf_read_four(const rf_chunk* at, int step) {
  constexpr int IN_A_CHUNK = 4 / (int)sizeof(T);
  const rf_chunk* chunk = at + step / IN_A_CHUNK * PITCH;
  const auto four = reinterpret_cast<const rf_numbers<T, 4>*>(chunk)[step % IN_A_CHUNK];
  rf_numbers<float, 4> wide;
  RF_UNROLL
  for (int k = 0; k < 4; ++k) wide.of[k] = (float)four.of[k];
  return wide;
}

// Zero, one by one: an initialiser of the member is read from memory, a number at a time.
template <class SUMS>
RF_DEVICE void rf_clear(SUMS& own) {
  RF_UNROLL
  for (int i = 0; i < SUMS::COUNT; ++i) own.sum(i) = 0;
}

// A thread has rows that are 4 apart and columns that are 8 apart: then a warp reads neighbouring
// chunks.
template <class TILE, bool IS_PACKED, class A = float, class B = float>
struct rf_plain_sums {
  using Sum = float;
  static constexpr int ROWS = TILE::WM / 4, COLUMNS = TILE::WN / 8;
  static constexpr int COUNT = ROWS * COLUMNS;
  rf_warp_place<TILE> place;
  float sums[ROWS][COLUMNS];

  RF_MEMBER rf_plain_sums() { rf_clear(*this); }
  RF_MEMBER int m(int i) const { return place.m + i / COLUMNS * 4 + place.lane / 8; }
  RF_MEMBER int n(int i) const { return place.n + i % COLUMNS * 8 + place.lane % 8; }
  RF_MEMBER float& sum(int i) { return sums[i / COLUMNS][i % COLUMNS]; }

  RF_MEMBER void add(const rf_chunk* a_stage, const rf_chunk* b_stage) {
    constexpr int STEPS = TILE::CHUNKS * 4 / (int)(sizeof(A) > sizeof(B) ? sizeof(A) : sizeof(B));
    const rf_chunk *a_at = a_stage + m(0), *b_at = b_stage + n(0);
    RF_NO_UNROLL  // what is loaded for several steps at once would not fit into the registers
        for (int s = 0; s < STEPS / TILE::WARPS_K; ++s) {
      const int step = s * TILE::WARPS_K + place.group;
      rf_numbers<float, 4> b[COLUMNS];
      RF_UNROLL
      for (int j = 0; j < COLUMNS; ++j) b[j] = rf_read_four<B, TILE::PITCH_B>(b_at + j * 8, step);
      RF_UNROLL
      for (int i = 0; i < ROWS; ++i) {
        const auto a = rf_read_four<A, TILE::PITCH_A>(a_at + i * 4, step);
        RF_UNROLL
        for (int k = 0; k < 4; ++k) {
          RF_UNROLL
          for (int j = 0; j < COLUMNS; ++j) sums[i][j] += a.of[k] * b[j].of[k];
        }
      }
    }
  }
};

// The same by products of small matrices, two chunks at a time.
template <class TILE, bool IS_PACKED, rf_factors FACTORS>
struct rf_matrix_sums {
  using Sum = typename rf_sum_of<FACTORS>::type;
  static constexpr int ROWS = TILE::WM / 16, COLUMNS = TILE::WN / 8;
  static constexpr int COUNT = ROWS * COLUMNS * 4;
  rf_warp_place<TILE> place;
  Sum sums[ROWS][COLUMNS][4];

  RF_MEMBER rf_matrix_sums() { rf_clear(*this); }
  RF_MEMBER int m(int i) const {
    return place.m + i / 4 / COLUMNS * 16 + i % 4 / 2 * 8 + place.lane / 4;
  }
  RF_MEMBER int n(int i) const {
    return place.n + i / 4 % COLUMNS * 8 + place.lane % 4 * 2 + i % 2;
  }
  RF_MEMBER Sum& sum(int i) { return sums[i / 4 / COLUMNS][i / 4 % COLUMNS][i % 4]; }

  RF_DEVICE void round(unsigned (&parts)[4]) {
    RF_UNROLL
    for (int i = 0; i < 4; ++i) parts[i] = rf_to_tf32(parts[i]);
  }
  RF_MEMBER void add(const rf_chunk* a_stage, const rf_chunk* b_stage) {
    const rf_chunk* a_at = a_stage + place.lane / 16 * TILE::PITCH_A + place.m + place.lane % 16;
    const rf_chunk* b_at = b_stage + place.lane / 8 % 2 * TILE::PITCH_B + place.n +
                           place.lane / 16 * 8 + place.lane % 8;
    RF_UNROLL
    for (int c = 0; c < TILE::CHUNKS / 2 / TILE::WARPS_K; ++c) {
      const int chunk = (c * TILE::WARPS_K + place.group) * 2;
      unsigned a[ROWS][4], b[COLUMNS][2];
      RF_UNROLL
      for (int i = 0; i < ROWS; ++i) {
        rf_load_matrices(a[i], a_at + chunk * TILE::PITCH_A + i * 16);
        if (FACTORS == RF_TF32) round(a[i]);
      }
      RF_UNROLL
      for (int j = 0; j < COLUMNS; j += 2) {
        unsigned both[4];
        rf_load_matrices(both, b_at + chunk * TILE::PITCH_B + j * 8);
        if (FACTORS == RF_TF32 && !IS_PACKED) round(both);
        b[j][0] = both[0], b[j][1] = both[1], b[j + 1][0] = both[2], b[j + 1][1] = both[3];
      }
      rf_multiply<FACTORS>(sums, a, b);
    }
  }
};

// How the products are made: one by one, so of factors of any two types, or by the instructions for
// small matrices.
struct rf_plain {
  template <class TILE, bool IS_PACKED>
  using Sums = rf_plain_sums<TILE, IS_PACKED>;
};
template <class P>
struct rf_widened {
  template <class TILE, bool IS_PACKED>
  using Sums = rf_plain_sums<TILE, IS_PACKED, typename P::A, typename P::B>;
};
template <rf_factors FACTORS>
struct rf_matrix {
  template <class TILE, bool IS_PACKED>
  using Sums = rf_matrix_sums<TILE, IS_PACKED, FACTORS>;
};

// The sums of the warps that took other chunks of the same place, through the arena.
template <class TILE, class SUMS>
RF_DEVICE void rf_gather_sums(char* arena, SUMS& own) {
  if (TILE::WARPS_K == 1) return;
  constexpr int SHARE = TILE::WARPS_M * TILE::WARPS_N * 32;
  using Sum = typename SUMS::Sum;
  Sum* parts = reinterpret_cast<Sum*>(arena) + (int)threadIdx.x % SHARE;
  rf_copies_wait<0>();
  rf_sync();
  RF_UNROLL
  for (int i = 0; i < SUMS::COUNT; ++i) {
    const int part = (own.place.group - 1) * SUMS::COUNT + i;
    if (own.place.group) parts[part * SHARE] = own.sum(i);
  }
  rf_sync();
  for (int group = 0; group < TILE::WARPS_K - 1; ++group) {
    RF_UNROLL
    for (int i = 0; i < SUMS::COUNT; ++i) {
      if (!own.place.group) own.sum(i) += parts[(group * SUMS::COUNT + i) * SHARE];
    }
  }
}

template <class P, class TILE, class HOW, class R, class B, class S>
RF_DEVICE void rf_contract(char* arena, int tile_m, int tile_n, R row, B b, S store) {
  using stage_of = rf_stage<P, TILE>;
  constexpr int STEPS = (P::K + stage_of::DEPTH - 1) / stage_of::DEPTH;
  constexpr int A_CHUNKS = stage_of::A_CHUNKS * TILE::PITCH_A;
  constexpr int STAGE_CHUNKS = A_CHUNKS + stage_of::B_CHUNKS * TILE::PITCH_B;
  const int m0 = tile_m * TILE::BM, n0 = tile_n * TILE::BN;
  rf_chunk* stages = reinterpret_cast<rf_chunk*>(arena);
  rf_loader_a<P, TILE, R> a_loader(row, m0);
  rf_loader_b<P, TILE, B, B::SOURCE> b_loader(b, n0);
  typename HOW::template Sums<TILE, B::SOURCE == RF_FROM_PANELS> own;
  int next = 0;  // the step to be loaded, and where it goes
  rf_chunk* to = stages;
  const auto load = [&] {
    if (next++ < STEPS) {
      a_loader.load(to);
      b_loader.load(to + A_CHUNKS);
    }
    rf_copies_commit();
    to = to == stages + (TILE::STAGES - 1) * STAGE_CHUNKS ? stages : to + STAGE_CHUNKS;
  };
  RF_UNROLL
  for (int i = 0; i < TILE::STAGES - 1; ++i) load();
  const rf_chunk* stage = stages;
  RF_NO_UNROLL
  for (int step = 0; step < STEPS; ++step) {
    rf_copies_wait<TILE::STAGES - 2>();
    rf_sync();  // all have what they wait for, and are through with the stage before
    load();
    own.add(stage, stage + A_CHUNKS);
    stage = stage == stages + (TILE::STAGES - 1) * STAGE_CHUNKS ? stages : stage + STAGE_CHUNKS;
  }
  rf_gather_sums<TILE>(arena, own);
  if (own.place.group) return;
  RF_UNROLL
  for (int i = 0; i < own.COUNT; ++i) {
    const int m = m0 + own.m(i), n = n0 + own.n(i);
    if (m < P::M && n < P::N) store(m, n, own.sum(i));
  }
}

template <class A, class B, int COUNT>
RF_DEVICE void rf_add_products(float& sum, const rf_numbers<A, COUNT>& a,
                               const rf_numbers<B, COUNT>& b) {
  RF_UNROLL
  for (int i = 0; i < COUNT; ++i) sum += (float)a.of[i] * (float)b.of[i];
}
template <class A, class B, int COUNT>
RF_DEVICE void rf_add_products(int& sum, const rf_numbers<A, COUNT>& a,
                               const rf_numbers<B, COUNT>& b) {
  RF_UNROLL
  for (int i = 0; i < COUNT / 4; ++i)
    sum = rf_dot<A, B>(reinterpret_cast<const unsigned*>(a.of)[i],
                       reinterpret_cast<const unsigned*>(b.of)[i], sum);
}

// A few rows only: nothing is worth a place in the arena but the sums. Each warp goes over its own
// part of K, a lane for each column of PANELS panels, and has BATCH loads of weights under way.
template <class P, int PANELS, class R, class B, class S>
RF_DEVICE void rf_contract_few(char* arena, int tile_n, R row, B b, S store) {
  constexpr int WARPS = RF_THREADS / 32, BATCH = 8 / PANELS, VECTOR = P::VECTOR_B;
  constexpr int COLUMNS = PANELS * RF_PANEL, ALL_PANELS = (P::N + RF_PANEL - 1) / RF_PANEL;
  using Sum = typename P::Sum;
  using vector = rf_numbers<typename P::B, VECTOR>;
  using numbers = rf_numbers<typename P::A, VECTOR>;
  const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  const vector* columns[PANELS];
  RF_UNROLL
  for (int p = 0; p < PANELS; ++p) {
    const int panel = rf_least(tile_n * PANELS + p, ALL_PANELS - 1);
    columns[p] = reinterpret_cast<const vector*>(B::panel(b, panel)) + lane;
  }
  Sum sums[PANELS][P::M] = {};
  RF_NO_UNROLL
  for (int first = warp; first < B::DEPTH; first += WARPS * BATCH) {
    vector weights[BATCH][PANELS];
    RF_UNROLL
    for (int i = 0; i < BATCH; ++i) {
      const int chunk = rf_least(first + i * WARPS, B::DEPTH - 1);
      RF_UNROLL
      for (int p = 0; p < PANELS; ++p) weights[i][p] = columns[p][chunk * RF_PANEL];
    }
    RF_UNROLL
    for (int i = 0; i < BATCH; ++i) {
      const int k = (first + i * WARPS) * VECTOR;
      RF_UNROLL
      for (int m = 0; m < P::M; ++m) {
        const auto* run = k < P::K ? row(m, k / P::LENGTH) : nullptr;
        if (!run) continue;
        RF_GLOBAL(run);
        const numbers a = *reinterpret_cast<const numbers*>(run + k % P::LENGTH);
        RF_UNROLL
        for (int p = 0; p < PANELS; ++p) rf_add_products(sums[p][m], a, weights[i][p]);
      }
    }
  }
  Sum* parts = reinterpret_cast<Sum*>(arena);  // [WARPS][P::M][COLUMNS]
  RF_UNROLL
  for (int p = 0; p < PANELS; ++p) {
    RF_UNROLL
    for (int m = 0; m < P::M; ++m)
      parts[(warp * P::M + m) * COLUMNS + p * RF_PANEL + lane] = sums[p][m];
  }
  rf_sync();
  for (int i = (int)threadIdx.x; i < P::M * COLUMNS; i += RF_THREADS) {
    Sum sum = 0;
    RF_UNROLL
    for (int w = 0; w < WARPS; ++w) sum += parts[w * P::M * COLUMNS + i];
    const int n = tile_n * COLUMNS + i % COLUMNS;
    if (n < P::N) store(i / COLUMNS, n, sum);
  }
}
#endif
