// The emulator's copies that run on by themselves, and its products of matrices: what cp.async,
// ldmatrix and mma.sync do on a GPU from sm_80 on.
//
// A copy may happen at any time between its issue and the wait for it. Here it happens at either
// end: at once in a launch in descending order, as late as possible in one in ascending order, and
// in random order now so, now so. A wait for too few and a place that is still read both show. The
// race detector is told of either end, in every order.
#define RF_EMULATOR_RUNTIME
#include <deque>
#include <vector>

#include "emulator.h"

namespace rf_emulator {
namespace {

struct PutOff {
  rf_emulator_copy copy;
  unsigned group;
};

struct Copies {
  std::deque<PutOff> waiting;
  unsigned group = 0;  // the one that is open
  bool is_late = true;
};

#ifdef RF_EMULATOR_RACE
constexpr bool kIsWatched = true;
#else
constexpr bool kIsWatched = false;
#endif

rf_emulator_config config;
std::vector<Copies> copies;  // of every thread of the launch

bool draw(unsigned thread, unsigned group) {
  unsigned state = (config.seed + 1) * 2654435761u ^ thread * 40503u ^ group * 69069u;
  state ^= state >> 15;
  state *= 2246822519u;
  return state >> 16 & 1;
}

unsigned number() {
  const rf_emulator_thread& self = *rf_emulator_current;
  return self.block_index * self.block_size + self.thread_index;
}

Copies& own_copies() {
  if (copies.empty()) {
    copies.resize(static_cast<size_t>(config.blocks) * static_cast<size_t>(config.threads));
    for (Copies& each : copies) each.is_late = config.order != rf_emulator_descending;
  }
  return copies[number()];
}

float float_of(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

float half_value(unsigned half) {
  const unsigned sign = (half & 0x8000u) << 16, size = half & 0x7fffu;
  if (size >= 0x7c00u) return float_of(sign | 0x7f800000u | (size & 0x3ffu) << 13);
  if (size >= 0x400u) return float_of(sign | ((size << 13) + 0x38000000u));
  const float tiny = static_cast<float>(size) * 5.9604644775390625e-8f;  // 2^-24
  return sign ? -tiny : tiny;
}

constexpr int kBytes = 3;  // from here on factors are bytes: with a sign or without, of A and of B
constexpr int kMost = 4;   // factors in a register

// How many factors a register holds, and their values: as floats, which hold every sum of the
// products of 32 bytes.
int decode(int factors, bool is_a, unsigned bits, float* values) {
  if (factors == 0) {
    values[0] = float_of(bits & 0xffffe000u);
    return 1;
  }
  if (factors >= kBytes) {
    const bool is_unsigned = (factors - kBytes) >> (is_a ? 1 : 0) & 1;
    for (int i = 0; i < 4; ++i) {
      const unsigned byte = bits >> (8 * i) & 0xffu;
      values[i] = static_cast<float>(is_unsigned ? static_cast<int>(byte)
                                                 : static_cast<int>(static_cast<int8_t>(byte)));
    }
    return 4;
  }
  for (int i = 0; i < 2; ++i) {
    const unsigned half = bits >> (16 * i) & 0xffffu;
    values[i] = factors == 1 ? half_value(half) : float_of(half << 16);
  }
  return 2;
}

unsigned half_of(const unsigned* words, int place) {
  return words[place / 2] >> (place % 2 * 16) & 0xffffu;
}

constexpr int kRows = 16, kColumns = 8, kDeepest = 32;

// Rows lane / 4 and that + 8, twice: the first and the last 16 bytes of K.
int gather_a(const rf_emulator_product* const* lanes, int i, float (*a)[kDeepest]) {
  int each = 1;
  for (int lane = 0; lane < 32; ++lane) {
    for (int part = 0; part < 4; ++part) {
      float values[kMost];
      each = decode(lanes[0]->factors, true, lanes[lane]->a[i * 4 + part], values);
      float* to = a[lane / 4 + part % 2 * 8] + (part / 2 * 4 + lane % 4) * each;
      for (int v = 0; v < each; ++v) to[v] = values[v];
    }
  }
  return 8 * each;
}

void gather_b(const rf_emulator_product* const* lanes, int j, float (*b)[kColumns]) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int part = 0; part < 2; ++part) {
      float values[kMost];
      const int each = decode(lanes[0]->factors, false, lanes[lane]->b[j * 2 + part], values);
      for (int v = 0; v < each; ++v) b[(part * 4 + lane % 4) * each + v][lane / 4] = values[v];
    }
  }
}

void multiply(const float (*a)[kDeepest], const float (*b)[kColumns], int depth,
              float (*sums)[kColumns]) {
  for (int m = 0; m < kRows; ++m) {
    for (int k = 0; k < depth; ++k) {
      for (int n = 0; n < kColumns; ++n) sums[m][n] += a[m][k] * b[k][n];
    }
  }
}

void add_products(const rf_emulator_product* const* lanes, int i, int j, const float (*a)[kDeepest],
                  int depth) {
  float b[kDeepest][kColumns], found[kRows][kColumns] = {};
  gather_b(lanes, j, b);
  multiply(a, b, depth, found);
  for (int lane = 0; lane < 32; ++lane) {
    const int at = (i * lanes[0]->columns + j) * 4;
    for (int part = 0; part < 4; ++part) {
      const float sum = found[lane / 4 + part / 2 * 8][lane % 4 * 2 + part % 2];
      if (lanes[0]->factors >= kBytes)
        static_cast<int*>(lanes[lane]->sums)[at + part] += static_cast<int>(sum);
      else
        static_cast<float*>(lanes[lane]->sums)[at + part] += sum;
    }
  }
}

}  // namespace

void copies_begin(const rf_emulator_config& own) {
  config = own;
  copies.clear();
}

}  // namespace rf_emulator

using namespace rf_emulator;

extern "C" bool rf_emulator_copy_is_put_off(const rf_emulator_copy* copy) {
  Copies& own = own_copies();
  if (!own.is_late && !kIsWatched) return false;
  if (!own.is_late) memcpy(copy->to, copy->from, copy->given);
  own.waiting.push_back({*copy, own.group});
  return true;
}

extern "C" void rf_emulator_copies_commit() {
  Copies& own = own_copies();
  ++own.group;
  if (config.order == rf_emulator_random) own.is_late = draw(number(), own.group);
}

extern "C" bool rf_emulator_next_copy(unsigned groups, rf_emulator_copy* copy) {
  Copies& own = own_copies();
  if (own.waiting.empty() || own.waiting.front().group + groups >= own.group) return false;
  *copy = own.waiting.front().copy;
  own.waiting.pop_front();
  return true;
}

extern "C" void rf_emulator_do_load_matrices(void* const* arguments, unsigned) {
  auto* const* lanes = reinterpret_cast<rf_emulator_matrix_row* const*>(arguments);
  for (int lane = 0; lane < 32; ++lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      auto* const* rows = lanes + matrix * 8;
      unsigned part = rows[lane / 4]->words[lane % 4];
      if (lanes[lane]->transposed) {
        const int row = lane % 4 * 2, column = lane / 4;
        part = half_of(rows[row]->words, column) | half_of(rows[row + 1]->words, column) << 16;
      }
      lanes[lane]->parts[matrix] = part;
    }
  }
}

extern "C" void rf_emulator_do_multiply(void* const* arguments, unsigned) {
  auto* const* lanes = reinterpret_cast<const rf_emulator_product* const*>(arguments);
  for (int i = 0; i < lanes[0]->rows; ++i) {
    float a[kRows][kDeepest];
    const int depth = gather_a(lanes, i, a);
    for (int j = 0; j < lanes[0]->columns; ++j) add_products(lanes, i, j, a, depth);
  }
}
