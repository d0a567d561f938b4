// Matrix products of bytes, summed in int. A block of threads makes them as all others; a core
// multiplies four bytes of K for each of some columns at once.
#if defined(RF_SIMT)
template <class P, class TILE, class HOW, class R, class B, class S>
RF_DEVICE void rf_contract_bytes(char* arena, int tile_m, int tile_n, R row, B b, S store) {
  rf_contract<P, TILE, HOW>(arena, tile_m, tile_n, row, b, store);
}
template <class P, int PANELS, class R, class B, class S>
RF_DEVICE void rf_contract_few_bytes(char* arena, int tile_n, R row, B b, S store) {
  rf_contract_few<P, PANELS>(arena, tile_n, row, b, store);
}
#else
enum { RF_GROUP = 4, RF_CHUNK_GROUPS = 256 };  // bytes of K; groups that stay in the nearest cache
typedef int rf_ints __attribute__((vector_size(RF_WIDTH * 4), aligned(4), may_alias));
typedef unsigned rf_words __attribute__((vector_size(RF_WIDTH * 4), aligned(4), may_alias));
typedef short rf_shorts __attribute__((vector_size(RF_WIDTH * 4), aligned(4), may_alias));

template <int VALUE>
struct rf_number {
  static constexpr int value = VALUE;
};

template <class T>
struct rf_byte {
  static constexpr bool HAS_SIGN = (T)-1 < 0;
  // Every other byte as a short: the first of each pair, or the last.
  RF_DEVICE rf_shorts first(rf_ints x) {
    return HAS_SIGN ? (rf_shorts)x << 8 >> 8 : (rf_shorts)(x & 0x00ff00ff);
  }
  RF_DEVICE rf_shorts last(rf_ints x) {
    return HAS_SIGN ? (rf_shorts)x >> 8 : (rf_shorts)((rf_words)x >> 8 & 0x00ff00ffu);
  }
};

// Bytes with a sign that the instruction does not take are 128 too large, which is put right later.
#if defined(__AVX512VNNI__)
template <class A, class B>
struct rf_four_bytes {
  static constexpr bool IS_DIRECT = rf_byte<B>::HAS_SIGN;
  static constexpr int FLIP = IS_DIRECT && rf_byte<A>::HAS_SIGN ? 128 : 0;
};
#else
template <class A, class B>
struct rf_four_bytes {
  static constexpr bool IS_DIRECT = false;
  static constexpr int FLIP = 0;
};
#endif

// The products of shorts, two and two of them added up.
RF_DEVICE rf_ints rf_add_pairs(rf_shorts a, rf_shorts b) {
#if defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
  rf_ints sums;
  asm("vpmaddwd %2, %1, %0" : "=v"(sums) : "v"(a), "v"(b));
  return sums;
#else
  const rf_ints x = (rf_ints)a, y = (rf_ints)b;
  return (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
#endif
}

// Adds to each sum the products of four bytes of K.
template <class A, class B>
RF_DEVICE void rf_add_four(rf_ints& sums, rf_ints a, rf_ints b) {
  if constexpr (rf_four_bytes<A, B>::IS_DIRECT) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
  } else {
    sums += rf_add_pairs(rf_byte<A>::first(a), rf_byte<B>::first(b));
    sums += rf_add_pairs(rf_byte<A>::last(a), rf_byte<B>::last(b));
  }
}
RF_DEVICE rf_ints rf_four_in_each_lane(const void* bytes) {
  int four;
  memcpy(&four, bytes, 4);
  return four - rf_ints{};
}

// ROWS x (2 vectors) of the output, `groups` deep, and `start` are added to `out`.
template <class A, class B, int ROWS>
static __attribute__((noinline)) void rf_bytes_tile(const unsigned char* a, int pitch, int groups,
                                                    const B* panel, const int* start, int* out,
                                                    int out_pitch) {
  constexpr int CHAINS = ROWS == 1 ? 4 : 1;
  rf_ints sums[ROWS * CHAINS][2] = {};
  int g = 0;
  for (; g + CHAINS <= groups; g += CHAINS) {
    RF_UNROLL
    for (int c = 0; c < CHAINS; ++c) {
      const B* at = panel + (rf_size)(g + c) * RF_PANEL * RF_GROUP;
      const rf_ints b0 = *(const rf_ints*)at, b1 = *(const rf_ints*)(at + RF_WIDTH * RF_GROUP);
      RF_UNROLL
      for (int r = 0; r < ROWS; ++r) {
        const rf_ints value = rf_four_in_each_lane(a + (rf_size)r * pitch + (g + c) * RF_GROUP);
        rf_add_four<A, B>(sums[r * CHAINS + c][0], value, b0);
        rf_add_four<A, B>(sums[r * CHAINS + c][1], value, b1);
      }
    }
  }
  for (; g < groups; ++g) {
    const B* at = panel + (rf_size)g * RF_PANEL * RF_GROUP;
    const rf_ints value = rf_four_in_each_lane(a + g * RF_GROUP);
    rf_add_four<A, B>(sums[0][0], value, *(const rf_ints*)at);
    rf_add_four<A, B>(sums[0][1], value, *(const rf_ints*)(at + RF_WIDTH * RF_GROUP));
  }
  RF_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    RF_UNROLL
    for (int v = 0; v < 2; ++v) {
      int* to = out + r * out_pitch + v * RF_WIDTH;
      RF_UNROLL
      for (int c = 1; c < CHAINS; ++c) sums[r * CHAINS][v] += sums[r * CHAINS + c][v];
      *(rf_ints*)to += sums[r * CHAINS][v] + *(const rf_ints*)(start + v * RF_WIDTH);
    }
  }
}

// What FLIP makes too much, for each column of a panel.
template <class A, class B>
RF_DEVICE void rf_too_much(const B* panel, int groups, int* start) {
  rf_ints* sums = (rf_ints*)start;
  for (int v = 0; v < RF_PANEL / RF_WIDTH; ++v) sums[v] = rf_ints{};
  if (!rf_four_bytes<A, B>::FLIP) return;
  const rf_ints flipped = (int)0x80808080u - rf_ints{};
  for (int g = 0; g < groups; ++g, panel += RF_PANEL * RF_GROUP) {
    RF_UNROLL
    for (int v = 0; v < RF_PANEL / RF_WIDTH; ++v)
      rf_add_four<A, B>(sums[v], flipped, *(const rf_ints*)(panel + v * RF_WIDTH * RF_GROUP));
  }
  for (int v = 0; v < RF_PANEL / RF_WIDTH; ++v) sums[v] = -sums[v];
}

// Some groups of K for one panel: all rows of the tile.
template <class A, class B>
RF_DEVICE void rf_bytes_chunk(const unsigned char* a, int pitch, int groups, const B* panel,
                              int* out, int out_pitch, int rows) {
  int start[RF_PANEL];
  rf_too_much<A>(panel, groups, start);
  for (int column = 0; column < RF_PANEL; column += 2 * RF_WIDTH) {
    const B* from = panel + column * RF_GROUP;
    const auto some = [&](auto count, int m) {
      rf_bytes_tile<A, B, count.value>(a + (rf_size)m * pitch, pitch, groups, from, start + column,
                                       out + m * out_pitch + column, out_pitch);
    };
    int m = 0;
    for (; m + RF_ROWS <= rows; m += RF_ROWS) some(rf_number<RF_ROWS>{}, m);
    for (; m + 4 <= rows; m += 4) some(rf_number<4>{}, m);
    for (; m < rows; ++m) some(rf_number<1>{}, m);
  }
}

// Every row as one run, with the sign as the instruction wants it.
template <class P, class R>
RF_DEVICE void rf_gather_bytes(R row, int m0, int rows, unsigned char* to, int pitch) {
  constexpr unsigned char FLIP = rf_four_bytes<typename P::A, typename P::B>::FLIP;
  for (int m = 0; m < rows; ++m, to += pitch) {
    for (int s = 0; s < P::SEGMENTS; ++s) {
      const auto* run = row(m0 + m, s);
      unsigned char* part = to + s * P::LENGTH;
      if (run) {
        RF_VECTOR_LOOP
        for (int k = 0; k < P::LENGTH; ++k)
          part[k] = (unsigned char)(run[(rf_size)k * P::STEP] ^ FLIP);
      } else {
        memset(part, (unsigned char)P::FILL ^ FLIP, P::LENGTH);
      }
    }
    for (int k = P::K; k < pitch; ++k) to[k] = 0;
  }
}

// [columns / RF_PANEL][K / RF_GROUP][RF_PANEL][RF_GROUP] of what does not lie so.
template <class P, class B>
RF_DEVICE void rf_pack_bytes(B b, int n0, int columns, typename P::B* to, int groups) {
  for (int column = 0; column < columns; column += RF_PANEL) {
    const int width = rf_least(RF_PANEL, columns - column);
    for (int k = 0; k < groups * RF_GROUP; ++k) {
      for (int j = 0; j < RF_PANEL; ++j) {
        const bool exists = j < width && k < P::K;
        to[(k / RF_GROUP * RF_PANEL + j) * RF_GROUP + k % RF_GROUP] =
            exists ? *B::at(b, k, n0 + column + j) : (typename P::B)0;
      }
    }
    to += (rf_size)groups * RF_PANEL * RF_GROUP;
  }
}

template <class P, class TILE, class HOW, class R, class B, class S>
RF_DEVICE void rf_contract_bytes(char* arena, int tile_m, int tile_n, R row, B b, S store) {
  constexpr int BM = TILE::BM, BN = TILE::BN, GROUPS = (P::K + RF_GROUP - 1) / RF_GROUP;
  constexpr int PITCH = GROUPS * RF_GROUP;
  using T = typename P::B;
  const int m0 = tile_m * BM, n0 = tile_n * BN;
  const int rows = rf_least(BM, P::M - m0), columns = rf_least(BN, P::N - n0);
  int* sums = reinterpret_cast<int*>(arena);                   // [BM][BN]
  unsigned char* gathered = (unsigned char*)(sums + BM * BN);  // [BM][PITCH]
  T* packed = (T*)(gathered + (rf_size)BM * PITCH);            // [BN / RF_PANEL][PITCH][RF_PANEL]
  rf_gather_bytes<P>(row, m0, rows, gathered, PITCH);
  if (!B::IS_GROUPED) rf_pack_bytes<P>(b, n0, columns, packed, GROUPS);
  memset(sums, 0, sizeof(int) * BM * BN);
  for (int g = 0; g < GROUPS; g += RF_CHUNK_GROUPS) {
    const int groups = rf_least(RF_CHUNK_GROUPS, GROUPS - g);
    for (int column = 0; column < columns; column += RF_PANEL) {
      const T* panel = packed + (rf_size)column * PITCH;
      if constexpr (B::IS_GROUPED) panel = B::panel(b, (n0 + column) / RF_PANEL);
      rf_bytes_chunk<typename P::A>(gathered + g * RF_GROUP, PITCH, groups,
                                    panel + (rf_size)g * RF_PANEL * RF_GROUP, sums + column, BN,
                                    rows);
    }
  }
  for (int m = 0; m < rows; ++m) {
    RF_VECTOR_LOOP
    for (int n = 0; n < columns; ++n) store(m0 + m, n0 + n, sums[m * BN + n]);
  }
}

template <class P, int PANELS, class R, class B, class S>
RF_DEVICE void rf_contract_few_bytes(char* arena, int tile_n, R row, B b, S store) {
  rf_contract_bytes<P, rf_tile<P::M, PANELS * RF_PANEL, 8, 2, 1, 1>, rf_plain>(arena, 0, tile_n,
                                                                               row, b, store);
}
#endif
