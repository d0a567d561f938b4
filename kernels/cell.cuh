// Several sums that are finished together. The columns of B are in tiles, and in each of them first
// those of the first sum of every result, then those of the second: finish(m, n, sums) gets the
// first one of its sums, and the others follow COLUMNS / PARTS apart.
template <class P, int PANELS, int PARTS, class R, class B, class F>
RF_DEVICE void rf_contract_cells(char* arena, int tile_n, R row, B b, F finish) {
  constexpr int COLUMNS = PANELS * RF_PANEL, RESULTS = COLUMNS / PARTS;
  float* sums = reinterpret_cast<float*>(arena);  // [M][COLUMNS]
  rf_contract_few<P, PANELS>(
      arena + P::M * COLUMNS * sizeof(float), tile_n, row, b,
      RF_LAMBDA(int m, int n, float sum) { sums[m * COLUMNS + n - tile_n * COLUMNS] = sum; });
  rf_sync();
  rf_tile_map<P::M, RESULTS, P::M, RESULTS>(
      0, RF_LAMBDA(int m, int i) { finish(m, tile_n * RESULTS + i, sums + m * COLUMNS + i); });
}
