// Numbers of a byte and less, each in a byte of its own: ways to store them, as in half.cuh. What
// is too large for a floating-point type becomes what IEEE or the type's own rules say.

// kMost is the largest number and kOver what is still larger: an infinity, NaN, or kMost itself.
// Where kOver is the sign alone, there is no negative zero.
template <int kMantissa, int kBias, unsigned kMost, unsigned kOver, unsigned kNaN,
          unsigned kSign = 0x80u>
struct rf_minifloat {
  unsigned char bits;
  rf_minifloat() = default;
  RF_MEMBER explicit rf_minifloat(float x) : bits((unsigned char)rounded(rf_float_bits(x))) {}
  RF_MEMBER explicit operator float() const { return value(bits & (kSign - 1u), bits & kSign); }

  static const bool kSignedZero = kOver != kSign;

  RF_MEMBER static unsigned rounded(unsigned x) {
    const unsigned sign = x >> 31 ? kSign : 0u, size = x & 0x7fffffffu;
    if (size > 0x7f800000u) return kSignedZero ? sign ^ kNaN : kNaN;
    const unsigned found = nearest(size);
    if (!kSignedZero && (found == 0u || found > kMost)) return found ? kOver : 0u;
    return sign | (found > kMost ? kOver : found);
  }
  RF_MEMBER static unsigned nearest(unsigned size) {
    const int exponent = (int)(size >> 23) - (127 - kBias);
    if (exponent >= 1) return rf_round_shift(size - ((127u - kBias) << 23), 23 - kMantissa);
    const int count = 24 - kMantissa - exponent;
    return count > 25 ? 0u : rf_round_shift((size & 0x7fffffu) | 0x800000u, count);
  }
  RF_MEMBER static float value(unsigned size, unsigned sign) {
    const unsigned minus = sign ? 0x80000000u : 0u;
    if (!kSignedZero && size == 0u && sign) return RF_NAN;
    if (size > kMost)
      return rf_float_of(minus | (size == kOver && kOver != kNaN ? 0x7f800000u : 0x7fc00000u));
    const unsigned fraction = size << (23 - kMantissa);
    if (size >> kMantissa) return rf_float_of(minus | (fraction + ((127u - kBias) << 23)));
    const float least = rf_float_of((128u - kBias - kMantissa) << 23);
    return sign ? -((float)size * least) : (float)size * least;
  }
};
using rf_float8e4m3fn = rf_minifloat<3, 7, 0x7eu, 0x7fu, 0x7fu>;
using rf_float8e4m3fnuz = rf_minifloat<3, 8, 0x7fu, 0x80u, 0x80u>;
using rf_float8e5m2 = rf_minifloat<2, 15, 0x7bu, 0x7cu, 0x7eu>;
using rf_float8e5m2fnuz = rf_minifloat<2, 16, 0x7fu, 0x80u, 0x80u>;
using rf_float4e2m1 = rf_minifloat<1, 1, 0x7u, 0x7u, 0x8u, 0x8u>;

// A power of two: an exponent and nothing else. Zero and what is negative are NaN.
struct rf_float8e8m0 {
  unsigned char bits;
  rf_float8e8m0() = default;
  RF_MEMBER explicit rf_float8e8m0(float x) : bits((unsigned char)rounded(rf_float_bits(x))) {}
  RF_MEMBER explicit operator float() const {
    return bits == 0xffu ? RF_NAN : rf_float_of(bits ? (unsigned)bits << 23 : 0x400000u);
  }
  RF_MEMBER static unsigned rounded(unsigned x) {
    if (x == 0u || x > 0x7f800000u) return 0xffu;
    return (x + (x >> 23 ? 0x400000u : 0x3fffffu)) >> 23;
  }
};

template <int kBits, bool kSigned>
struct rf_small_integer {
  unsigned char bits;
  rf_small_integer() = default;
  RF_MEMBER explicit rf_small_integer(int x) : bits((unsigned char)(x & kMask)) {}
  RF_MEMBER explicit operator int() const {
    const int value = bits & kMask;
    return kSigned && value > kMask / 2 ? value - kMask - 1 : value;
  }
  static const int kMask = (1 << kBits) - 1;
};
using rf_int4 = rf_small_integer<4, true>;
using rf_uint4 = rf_small_integer<4, false>;
using rf_int2 = rf_small_integer<2, true>;
using rf_uint2 = rf_small_integer<2, false>;
