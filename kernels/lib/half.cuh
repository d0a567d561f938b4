// 16-bit floating-point numbers: a way to store them. Whoever computes with one makes it a float
// first, and rounds to the nearest (to even, of two) when it is stored again.
#if !defined(__CUDACC__)
RF_DEVICE unsigned rf_float_bits(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  return bits;
}
RF_DEVICE float rf_float_of(unsigned bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
#else
RF_DEVICE unsigned rf_float_bits(float x) { return __float_as_uint(x); }
RF_DEVICE float rf_float_of(unsigned bits) { return __uint_as_float(bits); }
#endif

// A double as a float that rounds once more as the double itself would: to odd where it does not
// fit.
RF_DEVICE float rf_to_odd(double x) {
  const float near = (float)x;
  const unsigned bits = rf_float_bits(near);
  if ((double)near == x || x != x || (bits & 0x7fffffffu) >= 0x7f800000u || (bits & 1u))
    return near;
  const bool shrank = (x > 0) == ((double)near < x);
  return rf_float_of(shrank ? bits + 1u : bits - 1u);
}

// bits / 2^count, to the nearest, of two equally near to the even one.
RF_DEVICE unsigned rf_round_shift(unsigned bits, int count) {
  const unsigned half = (1u << (count - 1)) - 1u;
  return (bits + half + ((bits >> count) & 1u)) >> count;
}

RF_DEVICE unsigned short rf_half_bits(float x) {
#if defined(__CUDACC__)
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
#else
  const unsigned bits = rf_float_bits(x), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return (unsigned short)(sign | 0x7e00u);
  if (size >= 0x477ff000u) return (unsigned short)(sign | 0x7c00u);
  if (size < 0x33000000u) return (unsigned short)sign;
  if (size >= 0x38800000u) return (unsigned short)(sign | rf_round_shift(size - 0x38000000u, 13));
  const unsigned fraction = (size & 0x7fffffu) | 0x800000u;
  return (unsigned short)(sign | rf_round_shift(fraction, 126 - (int)(size >> 23)));
#endif
}
RF_DEVICE float rf_half_value(unsigned short half) {
#if defined(__CUDACC__)
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(half));
  return x;
#else
  const unsigned sign = (half & 0x8000u) << 16, size = half & 0x7fffu;
  if (size >= 0x7c00u) return rf_float_of(sign | 0x7f800000u | (size & 0x3ffu) << 13);
  if (size >= 0x400u) return rf_float_of(sign | ((size << 13) + 0x38000000u));
  const float tiny = (float)size * 5.9604644775390625e-8f;  // 2^-24
  return sign ? -tiny : tiny;
#endif
}

#if !defined(RF_SIMT)
template <int COUNT>
struct rf_wide {
  typedef float floats __attribute__((vector_size(4 * COUNT), aligned(4), may_alias));
  typedef unsigned words __attribute__((vector_size(4 * COUNT), aligned(4), may_alias));
  typedef unsigned short halves __attribute__((vector_size(2 * COUNT), aligned(2), may_alias));
};

// COUNT neighbours as floats. Compilers that could make this of a loop do not.
template <int COUNT>
RF_DEVICE typename rf_wide<COUNT>::floats rf_half_values(const void* from) {
  typedef typename rf_wide<COUNT>::floats floats;
  typedef typename rf_wide<COUNT>::words words;
  typedef typename rf_wide<COUNT>::halves halves;
#if defined(__F16C__)
  floats wide;
  asm("vcvtph2ps %1, %0" : "=v"(wide) : "m"(*(const halves*)from));
  return wide;
#else
  const words bits = __builtin_convertvector(*(const halves*)from, words);
  const floats scaled = (floats)((bits & 0x7fffu) << 13) * 5.192296858534828e33f;  // 2^112
  const words special = (words)((bits & 0x7c00u) == 0x7c00u) & 0x7f800000u;
  return (floats)((words)scaled | special | (bits & 0x8000u) << 16);
#endif
}
#endif

struct rf_half {
  unsigned short bits;
  rf_half() = default;
  RF_MEMBER explicit rf_half(float x) : bits(rf_half_bits(x)) {}
  RF_MEMBER explicit operator float() const { return rf_half_value(bits); }
#if !defined(RF_SIMT)
  template <int COUNT>
  RF_MEMBER static typename rf_wide<COUNT>::floats widened(const rf_half* from) {
    return rf_half_values<COUNT>(from);
  }
#endif
};

RF_DEVICE unsigned short rf_bfloat16_bits(float x) {
  const unsigned bits = rf_float_bits(x);
  if (x != x) return (unsigned short)(bits >> 16 | 0x40u);
  return (unsigned short)rf_round_shift(bits, 16);
}

struct rf_bfloat16 {
  unsigned short bits;
  rf_bfloat16() = default;
  RF_MEMBER explicit rf_bfloat16(float x) : bits(rf_bfloat16_bits(x)) {}
  RF_MEMBER explicit operator float() const { return rf_float_of((unsigned)bits << 16); }
#if !defined(RF_SIMT)
  template <int COUNT>
  RF_MEMBER static typename rf_wide<COUNT>::floats widened(const rf_bfloat16* from) {
    typedef typename rf_wide<COUNT>::words words;
    typedef typename rf_wide<COUNT>::halves halves;
    return (typename rf_wide<COUNT>::floats)(__builtin_convertvector(*(const halves*)from, words)
                                             << 16);
  }
#endif
};
