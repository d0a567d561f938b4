// rf_attend for a block of threads. Keys come while the block before is mixed, values while the
// scores are made.
#if defined(RF_SIMT)
// A product inside of a block of attention, as the inner loops of rf_contract see it.
template <int BM_, int BN_, int CHUNKS_, int WARPS_M_, int WARPS_N_, int PITCH_B_>
struct rf_block_tile {
  static constexpr int BM = BM_, BN = BN_, CHUNKS = CHUNKS_;
  static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, WARPS_K = 1;
  static constexpr int WM = BM / WARPS_M, WN = BN / WARPS_N;
  static constexpr int PITCH_A = BM + 1, PITCH_B = PITCH_B_;
};

// COUNT rows as [chunk][row], zero where there is no element; rows from `end` on do not exist.
template <class T, int COUNT, int LENGTH, int CHUNKS, class R>
RF_DEVICE void rf_bring_rows(rf_chunk* to, const R& rows, int first, int end) {
  constexpr int VECTOR = 16 / (int)sizeof(T), EACH = R::TOGETHER;
  constexpr int ACROSS = CHUNKS * VECTOR / EACH;
  for (int i = (int)threadIdx.x; i < COUNT * ACROSS; i += RF_THREADS) {
    const int row = i / ACROSS, column = i % ACROSS * EACH;
    const bool present = first + row < end && column < LENGTH;
    const T* from = present ? rows.at(first + row) + (rf_size)column * R::STEP : nullptr;
    rf_bring<T, EACH>(to, column / VECTOR * (COUNT + 1) + row, column % VECTOR, from, present);
  }
}

// Sums of weights times values. Both lie as [chunk][row], so a chunk is 16 bytes of one row of
// values: four columns of a key.
template <class TILE>
struct rf_plain_mix {
  static constexpr int ROWS = TILE::WM / 4, QUADS = TILE::WN / 32, COUNT = ROWS * QUADS * 4;
  rf_warp_place<TILE> place;
  float sums[ROWS][QUADS * 4];

  RF_MEMBER rf_plain_mix() { rf_clear(*this); }
  RF_MEMBER int m(int i) const { return place.m + i / (QUADS * 4) * 4 + place.lane / 8; }
  RF_MEMBER int n(int i) const {
    return place.n + i % (QUADS * 4) / 4 * 32 + place.lane % 8 * 4 + i % 4;
  }
  RF_MEMBER float& sum(int i) { return sums[i / (QUADS * 4)][i % (QUADS * 4)]; }

  RF_MEMBER void add(const rf_chunk* weights, const rf_chunk* values) {
    struct alignas(16) quad {
      float of[4];
    };
    const quad* a_at = reinterpret_cast<const quad*>(weights) + m(0);
    const quad* b_at = reinterpret_cast<const quad*>(values) + n(0) / 4 * TILE::PITCH_B;
    RF_NO_UNROLL
    for (int chunk = 0; chunk < TILE::CHUNKS; ++chunk) {
      quad a[ROWS];
      RF_UNROLL
      for (int i = 0; i < ROWS; ++i) a[i] = a_at[chunk * TILE::PITCH_A + i * 4];
      RF_UNROLL
      for (int k = 0; k < 4; ++k) {
        RF_UNROLL
        for (int j = 0; j < QUADS; ++j) {
          const quad b = b_at[j * 8 * TILE::PITCH_B + chunk * 4 + k];
          RF_UNROLL
          for (int i = 0; i < ROWS; ++i) {
            RF_UNROLL
            for (int v = 0; v < 4; ++v) sums[i][j * 4 + v] += a[i].of[k] * b.of[v];
          }
        }
      }
    }
  }
};

// The same by products of small matrices.
template <class TILE, rf_factors FACTORS>
struct rf_matrix_mix : rf_matrix_sums<TILE, false, FACTORS> {
  using Base = rf_matrix_sums<TILE, false, FACTORS>;
  static constexpr int ROWS = Base::ROWS, COLUMNS = Base::COLUMNS;

  // For 8 keys or 16, from `key` on: the values of two times 8 columns.
  RF_MEMBER void load(unsigned (&b)[COLUMNS][2], const rf_chunk* values, int key) {
    const int lane = this->place.lane;
    if (FACTORS == RF_TF32) {
      const unsigned* words = values->words;
      RF_UNROLL
      for (int j = 0; j < COLUMNS; ++j) {
        const int column = this->place.n + j * 8 + lane / 4;
        const int at = (column / 4 * TILE::PITCH_B + key + lane % 4) * 4 + column % 4;
        b[j][0] = rf_to_tf32(words[at]);
        b[j][1] = rf_to_tf32(words[at + 16]);
      }
    } else {
      const rf_chunk* at = values + (this->place.n / 8 + lane / 16) * TILE::PITCH_B + lane % 16;
      RF_UNROLL
      for (int j = 0; j < COLUMNS; j += 2) {
        unsigned both[4];
        rf_load_transposed(both, at + j * TILE::PITCH_B + key);
        b[j][0] = both[0], b[j][1] = both[1], b[j + 1][0] = both[2], b[j + 1][1] = both[3];
      }
    }
  }
  RF_MEMBER void add(const rf_chunk* weights, const rf_chunk* values) {
    constexpr int VECTOR = FACTORS == RF_TF32 ? 4 : 8;
    const int lane = this->place.lane;
    const rf_chunk* a_at = weights + lane / 16 * TILE::PITCH_A + this->place.m + lane % 16;
    RF_UNROLL
    for (int chunk = 0; chunk < TILE::CHUNKS; chunk += 2) {
      unsigned a[ROWS][4], b[COLUMNS][2];
      RF_UNROLL
      for (int i = 0; i < ROWS; ++i) {
        rf_load_matrices(a[i], a_at + chunk * TILE::PITCH_A + i * 16);
        if (FACTORS == RF_TF32) this->round(a[i]);
      }
      load(b, values, chunk * VECTOR);
      rf_multiply<FACTORS>(this->sums, a, b);
    }
  }
};

template <class HOW>
struct rf_mixing;
template <>
struct rf_mixing<rf_plain> {
  template <class TILE>
  using Sums = rf_plain_mix<TILE>;
};
template <rf_factors FACTORS>
struct rf_mixing<rf_matrix<FACTORS>> {
  template <class TILE>
  using Sums = rf_matrix_mix<TILE, FACTORS>;
};

// The weights of a block from its scores, in place. GROUP neighbouring threads have a row, and know
// its largest score and the sum of its weights so far.
template <class T, int BM, int BN>
struct rf_row_weights {
  static constexpr int GROUP = RF_THREADS / BM < 32 ? RF_THREADS / BM : 32;
  static constexpr int QUADS = (BN / 4 + GROUP - 1) / GROUP, PITCH = BM + 1;
  int row, part;
  float peak, sum;

  RF_MEMBER rf_row_weights()
      : row((int)threadIdx.x / GROUP),
        part((int)threadIdx.x % GROUP),
        peak(-RF_INFINITY),
        sum(0.0f) {}

  template <class JOIN>
  RF_MEMBER float joined(float value) const {
    RF_UNROLL
    for (int step = GROUP / 2; step > 0; step /= 2)
      value = JOIN::join(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
  }
  // `keys` of the block exist. Leaves what the sums so far shrink by.
  RF_MEMBER void make(rf_chunk* scores, float* shrinkage, int keys) {
    float own[QUADS][4], largest = peak;
    RF_UNROLL
    for (int q = 0; q < QUADS; ++q) {
      const int quad = part + q * GROUP;
      const float* from = reinterpret_cast<const float*>(scores + quad * PITCH + row);
      RF_UNROLL
      for (int v = 0; v < 4; ++v) {
        const bool present = row < BM && quad * 4 + v < keys;
        own[q][v] = present ? from[v] : -RF_INFINITY;
        largest = rf_max(largest, own[q][v]);
      }
    }
    largest = joined<rf_larger>(largest);
    const float shrink = rf_shrinkage(peak, largest);
    peak = largest;
    float total = 0.0f;
    RF_UNROLL
    for (int q = 0; q < QUADS; ++q) {
      RF_UNROLL
      for (int v = 0; v < 4; ++v) {
        own[q][v] = own[q][v] == -RF_INFINITY ? 0.0f : rf_exp(own[q][v] - peak);
        total += own[q][v];
      }
    }
    sum = sum * shrink + joined<rf_plus>(total);
    // Weights may lie where another thread of the group had a score; it has read that, or the sum
    // would not be here.
    if (row >= BM) return;
    RF_UNROLL
    for (int q = 0; q < QUADS; ++q) {
      constexpr int VECTOR = 16 / (int)sizeof(T);
      const int n = (part + q * GROUP) * 4;
      if (BN / 4 % GROUP && n >= BN) break;
      T* to = reinterpret_cast<T*>(scores + n / VECTOR * PITCH + row) + n % VECTOR;
      RF_UNROLL
      for (int v = 0; v < 4; ++v) to[v] = (T)own[q][v];
    }
    if (part == 0) shrinkage[row] = shrink;
  }
};

template <class H, class TILE, class HOW, class Q, class K, class V, class C, class S>
RF_DEVICE void rf_attend(char* arena, int tile_m, Q queries, K keys, V values, C score, S store) {
  using T = typename H::Element;
  constexpr int BM = TILE::BM, BN = TILE::BN, VECTOR = H::VECTOR;
  constexpr int DEEP = (H::DEPTH + 2 * VECTOR - 1) / (2 * VECTOR) * 2, WIDE = TILE::OUT / VECTOR;
  using SCORES = rf_block_tile<BM, BN, DEEP, TILE::WARPS_M, TILE::WARPS_N, BN + 1>;
  using SUMS = rf_block_tile<BM, TILE::OUT, BN / VECTOR, TILE::OUT_M, TILE::OUT_N, BN + 1>;
  rf_chunk* q_chunks = reinterpret_cast<rf_chunk*>(arena);
  rf_chunk* k_chunks = q_chunks + DEEP * (BM + 1);
  rf_chunk* v_chunks = k_chunks + DEEP * (BN + 1);
  rf_chunk* weights = v_chunks + WIDE * (BN + 1);
  float* of_rows = reinterpret_cast<float*>(weights + BN / 4 * (BM + 1));
  const int m0 = tile_m * BM;
  const auto bring_keys = [&](int n0) {
    if (n0 < H::N) rf_bring_rows<T, BN, H::DEPTH, DEEP>(k_chunks, keys, n0, H::N);
    rf_copies_commit();
  };
  const auto bring_values = [&](int n0) {
    if (n0 < H::N) rf_bring_rows<T, BN, H::WIDTH, WIDE>(v_chunks, values, n0, H::N);
    rf_copies_commit();
  };
  rf_bring_rows<T, BM, H::DEPTH, DEEP>(q_chunks, queries, m0, H::M);
  bring_keys(0);
  bring_values(0);
  typename rf_mixing<HOW>::template Sums<SUMS> mixed;
  rf_row_weights<T, BM, BN> rows;
  RF_NO_UNROLL
  for (int n0 = 0; n0 < H::N; n0 += BN) {
    rf_copies_wait<1>();
    rf_sync();  // the keys are there, and all are through with the weights before
    typename HOW::template Sums<SCORES, false> own;
    own.add(q_chunks, k_chunks);
    RF_UNROLL
    for (int i = 0; i < own.COUNT; ++i) {
      const int m = own.m(i), n = own.n(i);
      float* to = reinterpret_cast<float*>(weights + n / 4 * (BM + 1) + m) + n % 4;
      const bool exists = m0 + m < H::M && n0 + n < H::N;
      *to = exists ? score(m0 + m, n0 + n, own.sum(i)) : 0.0f;
    }
    rf_sync();  // the scores are there, and all are through with the keys
    bring_keys(n0 + BN);
    rows.make(weights, of_rows, rf_least(BN, H::N - n0));
    rf_copies_wait<1>();
    rf_sync();  // the weights and the values are there
    RF_UNROLL
    for (int i = 0; i < mixed.COUNT; ++i) mixed.sum(i) *= of_rows[mixed.m(i)];
    mixed.add(weights, v_chunks);
    rf_sync();  // all are through with the values
    bring_values(n0 + BN);
  }
  if (rows.row < BM && rows.part == 0) of_rows[rows.row] = rows.sum;
  rf_sync();
  RF_UNROLL
  for (int i = 0; i < mixed.COUNT; ++i) {
    const int m = mixed.m(i), n = mixed.n(i);
    if (m0 + m < H::M && n < H::WIDTH) store(m0 + m, n, mixed.sum(i) / of_rows[m]);
  }
}

// A few rows only: each key and each value goes by once. LANES neighbours have the chunks of one
// key, and every such slot has sums of its own, which are joined at the end.
template <class H>
struct rf_few_heads {
  using T = typename H::Element;
  static constexpr int VECTOR = H::VECTOR;
  static constexpr int DEEP = H::DEPTH / VECTOR, WIDE = H::WIDTH / VECTOR;
  static constexpr int CHUNKS = DEEP > WIDE ? DEEP : WIDE;
  static constexpr int LANES = CHUNKS > 16 ? 32 : CHUNKS > 8 ? 16 : CHUNKS > 4 ? 8 : 4;
  static constexpr int SLOTS = RF_THREADS / LANES, PITCH = H::WIDTH + 2;
  static_assert(CHUNKS <= 32, "a warp has to hold a row");
  struct alignas(16) vector {
    T of[VECTOR];
  };
  RF_DEVICE vector load(const T* row, int chunk, int count) {
    vector found = {};
    if (chunk >= count) return found;
    RF_GLOBAL(row);
    return *reinterpret_cast<const vector*>(row + chunk * VECTOR);
  }
};

// The sums of one slot for one row.
template <int VECTOR>
struct rf_few_sums {
  float peak = -RF_INFINITY, sum = 0.0f, mixed[VECTOR] = {};
  template <class V>
  RF_MEMBER void add(float score, const V& value) {
    const float largest = rf_max(peak, score), shrink = rf_shrinkage(peak, largest);
    const float weight = score == -RF_INFINITY ? 0.0f : rf_exp(score - largest);
    peak = largest;
    sum = sum * shrink + weight;
    RF_UNROLL
    for (int v = 0; v < VECTOR; ++v) mixed[v] = mixed[v] * shrink + weight * (float)value.of[v];
  }
};

template <class H, class S>
RF_DEVICE void rf_join_slots(const float* parts, S store) {
  using F = rf_few_heads<H>;
  for (int i = (int)threadIdx.x; i < H::M * H::WIDTH; i += RF_THREADS) {
    const float* own = parts + i / H::WIDTH * F::PITCH;
    float peak = -RF_INFINITY, sum = 0.0f, mixed = 0.0f;
    for (int s = 0; s < F::SLOTS; ++s) peak = rf_max(peak, own[s * H::M * F::PITCH]);
    for (int s = 0; s < F::SLOTS; ++s) {
      const float* from = own + s * H::M * F::PITCH;
      const float shrink = rf_shrinkage(from[0], peak);
      sum += from[1] * shrink;
      mixed += from[2 + i % H::WIDTH] * shrink;
    }
    store(i / H::WIDTH, i % H::WIDTH, mixed / sum);
  }
}

template <class H, class Q, class K, class V, class C, class S>
RF_DEVICE void rf_attend_few(char* arena, Q queries, K keys, V values, C score, S store) {
  using F = rf_few_heads<H>;
  using vector = typename F::vector;
  constexpr int BATCH = 2, STEPS = (H::N + F::SLOTS * BATCH - 1) / (F::SLOTS * BATCH);
  const int chunk = (int)threadIdx.x % F::LANES, slot = (int)threadIdx.x / F::LANES;
  vector query[H::M];
  rf_few_sums<F::VECTOR> sums[H::M];
  RF_UNROLL
  for (int m = 0; m < H::M; ++m) query[m] = F::load(queries.at(m), chunk, F::DEEP);
  RF_NO_UNROLL
  for (int step = 0; step < STEPS; ++step) {
    const int first = step * F::SLOTS * BATCH + slot;
    vector key[BATCH], value[BATCH];
    RF_UNROLL
    for (int b = 0; b < BATCH; ++b) {
      const int n = rf_least(first + b * F::SLOTS, H::N - 1);
      key[b] = F::load(keys.at(n), chunk, F::DEEP);
      value[b] = F::load(values.at(n), chunk, F::WIDE);
    }
    RF_UNROLL
    for (int b = 0; b < BATCH; ++b) {
      const int n = first + b * F::SLOTS;
      RF_UNROLL
      for (int m = 0; m < H::M; ++m) {
        float dot = 0.0f;
        RF_UNROLL
        for (int v = 0; v < F::VECTOR; ++v) dot += (float)query[m].of[v] * (float)key[b].of[v];
        RF_UNROLL
        for (int lanes = F::LANES / 2; lanes > 0; lanes /= 2)
          dot += __shfl_xor_sync(0xffffffffu, dot, lanes);
        sums[m].add(n < H::N ? score(m, n, dot) : -RF_INFINITY, value[b]);
      }
    }
  }
  float* parts = reinterpret_cast<float*>(arena);  // [SLOTS][M][2 + WIDTH]
  RF_UNROLL
  for (int m = 0; m < H::M; ++m) {
    float* to = parts + (slot * H::M + m) * F::PITCH;
    if (chunk == 0) to[0] = sums[m].peak;
    if (chunk == 0) to[1] = sums[m].sum;
    if (chunk >= F::WIDE) continue;
    RF_UNROLL
    for (int v = 0; v < F::VECTOR; ++v) to[2 + chunk * F::VECTOR + v] = sums[m].mixed[v];
  }
  rf_sync();
  rf_join_slots<H>(parts, store);
}
#endif
