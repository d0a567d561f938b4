// Copies into the arena that run on while a thread goes on, and products of small matrices that a
// warp makes together. A GPU from sm_80 on has instructions for both; the emulator does the same.

// What the factors of rf_multiply are: floats of which the upper 19 bits count, halves of either
// kind, two in a register, or bytes, four in a register, with a sign or without, of A and of B.
enum rf_factors { RF_TF32, RF_FLOAT16, RF_BFLOAT16, RF_S8_S8, RF_S8_U8, RF_U8_S8, RF_U8_U8 };

// What they are summed in.
template <rf_factors FACTORS, bool IS_BYTES = (FACTORS >= RF_S8_S8)>
struct rf_sum_of {
  using type = float;
};
template <rf_factors FACTORS>
struct rf_sum_of<FACTORS, true> {
  using type = int;
};

#if defined(RF_SIMT)
#if defined(__CUDACC__)
RF_DEVICE unsigned rf_shared_address(const void* in_arena) {
  return (unsigned)__cvta_generic_to_shared(in_arena);
}

// BYTES (4, 8 or 16, both places aligned to them) from global memory; zeros if not `present`.
template <int BYTES>
RF_DEVICE void rf_copy(void* to, const void* from, bool present) {
  const int given = present ? BYTES : 0;
  if (BYTES == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(rf_shared_address(to)),
                 "l"(from), "r"(given)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(rf_shared_address(to)),
                 "l"(from), "n"(BYTES), "r"(given)
                 : "memory");
  }
}
// Closes a group: all copies of this thread since the last one.
RF_DEVICE void rf_copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until no more than the last GROUPS groups of this thread are under way.
template <int GROUPS>
RF_DEVICE void rf_copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

// Four matrices of 8 rows of 16 bytes: lane i tells where row i % 8 of matrix i / 8 starts, and
// gets of each matrix, in row lane / 4, the 4 bytes number lane % 4.
RF_DEVICE void rf_load_matrices(unsigned (&parts)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
               : "r"(rf_shared_address(row))
               : "memory");
}

// The same for matrices whose columns are wanted: what is in column lane / 4, rows number
// lane % 4 * 2 and that + 1, of halves.
RF_DEVICE void rf_load_transposed(unsigned (&parts)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
               : "r"(rf_shared_address(row))
               : "memory");
}

#define RF_MMA(shape, type)                                                           \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type                \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])           \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
template <rf_factors FACTORS>
RF_DEVICE void rf_mma(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  if (FACTORS == RF_TF32) RF_MMA("m16n8k8", "tf32");
  if (FACTORS == RF_FLOAT16) RF_MMA("m16n8k16", "f16");
  if (FACTORS == RF_BFLOAT16) RF_MMA("m16n8k16", "bf16");
}
#undef RF_MMA

#define RF_MMA(a_type, b_type)                                                        \
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32." a_type "." b_type             \
               ".s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])           \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
template <rf_factors FACTORS>
RF_DEVICE void rf_mma(int (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  if (FACTORS == RF_S8_S8) RF_MMA("s8", "s8");
  if (FACTORS == RF_S8_U8) RF_MMA("s8", "u8");
  if (FACTORS == RF_U8_S8) RF_MMA("u8", "s8");
  if (FACTORS == RF_U8_U8) RF_MMA("u8", "u8");
}
#undef RF_MMA

// sums += A * B for ROWS x COLUMNS products of 16 x 8 each, 32 bytes of K deep. A warp holds them
// as the instruction has it: of sums rows lane / 4 and that + 8, columns lane % 4 * 2 and that + 1;
// of A what rf_load_matrices gives for (rows 0 to 7, first 16 bytes of K), (rows 8 to 15, first),
// (rows 0 to 7, last), (rows 8 to 15, last); of B for (columns, first), (columns, last).
template <rf_factors FACTORS, int ROWS, int COLUMNS, class T>
RF_DEVICE void rf_multiply(T (&sums)[ROWS][COLUMNS][4], const unsigned (&a)[ROWS][4],
                           const unsigned (&b)[COLUMNS][2]) {
  RF_UNROLL
  for (int i = 0; i < ROWS; ++i) {
    RF_UNROLL
    for (int j = 0; j < COLUMNS; ++j) rf_mma<FACTORS>(sums[i][j], a[i], b[j]);
  }
}
// sum + the products of 4 bytes, which have a sign if A and B have.
template <class A, class B>
RF_DEVICE int rf_dot(unsigned a, unsigned b, int sum) {
  const bool a_has_sign = (A)-1 < 0, b_has_sign = (B)-1 < 0;
#define RF_DOT(a_type, b_type) \
  asm("dp4a." a_type "." b_type " %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b))
  if (a_has_sign && b_has_sign) RF_DOT("s32", "s32");
  if (a_has_sign && !b_has_sign) RF_DOT("s32", "u32");
  if (!a_has_sign && b_has_sign) RF_DOT("u32", "s32");
  if (!a_has_sign && !b_has_sign) RF_DOT("u32", "u32");
#undef RF_DOT
  return sum;
}
// The nearest number of 19 bits, of two the one further from 0.
RF_DEVICE unsigned rf_to_tf32(unsigned bits) {
  unsigned rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
  return rounded;
}
#else
template <int BYTES>
RF_DEVICE void rf_copy(void* to, const void* from, bool present) {
  rf_emulator_copy_async(to, from, BYTES, present);
}
RF_DEVICE void rf_copies_commit() { rf_emulator_copies_commit(); }
template <int GROUPS>
RF_DEVICE void rf_copies_wait() {
  rf_emulator_copies_wait(GROUPS);
}
RF_DEVICE void rf_load_matrices(unsigned (&parts)[4], const void* row) {
  rf_emulator_load_matrices(parts, row, false);
}
RF_DEVICE void rf_load_transposed(unsigned (&parts)[4], const void* row) {
  rf_emulator_load_matrices(parts, row, true);
}
template <rf_factors FACTORS, int ROWS, int COLUMNS, class T>
RF_DEVICE void rf_multiply(T (&sums)[ROWS][COLUMNS][4], const unsigned (&a)[ROWS][4],
                           const unsigned (&b)[COLUMNS][2]) {
  rf_emulator_multiply(FACTORS, ROWS, COLUMNS, &sums[0][0][0], &a[0][0], &b[0][0]);
}
template <class A, class B>
RF_DEVICE int rf_dot(unsigned a, unsigned b, int sum) {
  for (int i = 0; i < 4; ++i) sum += (int)(A)(a >> 8 * i) * (int)(B)(b >> 8 * i);
  return sum;
}
RF_DEVICE unsigned rf_to_tf32(unsigned bits) {
  const bool is_number = (bits & 0x7f800000u) != 0x7f800000u;
  return is_number ? (bits + 0x1000u) & 0xffffe000u : bits;
}
#endif
#endif
