// Matrix products of every kind: store(m, n, sum over k of A(m, k) * B(k, n)) for one tile of the
// output.
//
// K is SEGMENTS runs of LENGTH elements that lie STEP apart, so a convolution is the same loop as a
// matrix product: row(m, segment) is where the run of row m starts, or null where it is padding.
// A chunk is 16 bytes of K: VECTOR_A elements of A, or VECTOR_B of B. Of every run TOGETHER
// elements lie on a boundary of their size and can be copied at once. Padding counts as FILL, which
// is 0 for all but bytes.
enum { RF_PANEL = 32 };

template <class T>
struct rf_summed_in {
  using type = float;
};
template <>
struct rf_summed_in<signed char> {
  using type = int;
};
template <>
struct rf_summed_in<unsigned char> {
  using type = int;
};

template <class A_, int M_, int N_, int SEGMENTS_, int LENGTH_, int STEP_, int TOGETHER_,
          class B_ = A_, int FILL_ = 0>
struct rf_problem {
  using A = A_;
  using B = B_;
  using Sum = typename rf_summed_in<A>::type;
  static constexpr int M = M_, N = N_, SEGMENTS = SEGMENTS_, LENGTH = LENGTH_, STEP = STEP_;
  static constexpr int K = SEGMENTS * LENGTH, TOGETHER = TOGETHER_, FILL = FILL_;
  static constexpr int VECTOR_A = 16 / (int)sizeof(A), VECTOR_B = 16 / (int)sizeof(B);
};

// A tile of BM x BN and how a block of threads makes it: M x N warps share it, and the others take
// other chunks of K. CHUNKS of K, of the factor that has fewer elements in one, are a stage, and
// STAGES of these have a place in the arena. The rows of a stage stand apart by what leads the
// chunks of one row of A to different banks.
template <int BM_, int BN_, int CHUNKS_, int STAGES_, int WARPS_M_, int WARPS_N_>
struct rf_tile {
  static constexpr int BM = BM_, BN = BN_, CHUNKS = CHUNKS_, STAGES = STAGES_;
  static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_;
  static constexpr int WARPS_K = RF_THREADS / 32 / (WARPS_M * WARPS_N);
  static constexpr int WM = BM / WARPS_M, WN = BN / WARPS_N;
  static constexpr int PITCH_A = BM + 8 / CHUNKS, PITCH_B = BN + 8 / CHUNKS;
};

// Where B comes from, and how it is copied: neighbours along K together, or one by one.
enum rf_source { RF_FROM_PANELS, RF_ALONG_K, RF_ELEMENTS };

// Weights as [panel][K / VECTOR][RF_PANEL][VECTOR], rows and columns beyond the last ones zero.
template <class T, int K, int VECTOR>
struct rf_packed {
  const T* panels;
  static constexpr int DEPTH = (K + VECTOR - 1) / VECTOR;  // of a panel
  static constexpr rf_source SOURCE = VECTOR * sizeof(T) == 16 ? RF_FROM_PANELS : RF_ELEMENTS;
  static constexpr bool IS_WIDE = VECTOR == 1;  // whole rows of a panel lie together
  static constexpr bool IS_GROUPED = VECTOR == 4 && sizeof(T) == 1;
  RF_DEVICE const T* at(const rf_packed& b, int k, int n) {
    return panel(b, n / RF_PANEL) + (k / VECTOR * RF_PANEL + n % RF_PANEL) * VECTOR + k % VECTOR;
  }
  RF_DEVICE const T* panel(const rf_packed& b, int p) {
    return b.panels + (rf_size)p * DEPTH * RF_PANEL * VECTOR;
  }
};

template <int TOGETHER_, class F>
struct rf_dense {
  F element;
  static constexpr int TOGETHER = TOGETHER_;
  static constexpr rf_source SOURCE = TOGETHER > 1 ? RF_ALONG_K : RF_ELEMENTS;
  static constexpr bool IS_WIDE = false, IS_GROUPED = false;
  RF_DEVICE auto at(const rf_dense& b, int k, int n) { return b.element(k, n); }
};
template <int TOGETHER, class F>
RF_DEVICE rf_dense<TOGETHER, F> rf_make_dense(F element) {
  return rf_dense<TOGETHER, F>{element};
}
