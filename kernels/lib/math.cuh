// Scalar functions. On the host they are branch-free polynomials, so that loops over them become
// vector code.
RF_DEVICE int rf_least(int a, int b) { return a < b ? a : b; }
RF_DEVICE int rf_floor_div(int a, int b) { return (a >= 0 ? a : a - b + 1) / b; }
RF_DEVICE int rf_floor_mod(int a, int b) { return a - rf_floor_div(a, b) * b; }

// An index from data: negative counts from the end, and nothing ever leaves the tensor.
RF_DEVICE int rf_wrap(long long position, int size) {
  const long long wrapped = position < 0 ? position + size : position;
  return (int)(wrapped < 0 ? 0 : wrapped >= size ? size - 1 : wrapped);
}

// The integer that a floating-point number is without its fraction: the nearest one there is if it
// is too large, 0 if it is NaN. The same on every machine, which C does not promise.
template <class T, class F>
RF_DEVICE T rf_integer(F x) {
  const bool is_signed = (T)-1 < 0;
  const T least = is_signed ? (T)((T)1 << (sizeof(T) * 8 - 1)) : (T)0;
  const T most = (T)~least;
  const F limit = (F)((T)1 << (sizeof(T) * 8 - 2)) * (is_signed ? (F)2 : (F)4);
  const F low = is_signed ? -limit : (F)0;
  if (sizeof(T) < 4) {  // all in one type, and no branches: loops over it become vector code
    const F number = x == x ? x : (F)0;
    const F bounded = number < (F)most ? number : (F)most;
    return (T)(int)(bounded > (F)least ? bounded : (F)least);
  }
  const bool fits = x > low && x < limit;
  const T whole = (T)(fits ? x : (F)0);
  return x >= limit ? most : (x <= low ? least : whole);
}

// NaN wins, as in NumPy. Asked so, a clamp is one comparison for each bound, and a chain of these
// has no branches.
template <class T>
RF_DEVICE T rf_max(T a, T b) {
  return !(a <= b) & (b == b) ? a : b;
}
template <class T>
RF_DEVICE T rf_min(T a, T b) {
  return !(a >= b) & (b == b) ? a : b;
}

#if defined(__CUDACC__)
RF_DEVICE float rf_exp(float x) { return expf(x); }
RF_DEVICE float rf_tanh(float x) { return tanhf(x); }
RF_DEVICE float rf_erf(float x) { return erff(x); }
RF_DEVICE float rf_log(float x) { return logf(x); }
#else
RF_DEVICE float rf_bits_float(int bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
// exp(x) = 2^n * exp(f) with |f| <= ln(2)/2; the degree-6 polynomial is right to 1 ulp or so there.
RF_DEVICE float rf_exp(float x) {
  // far below the least number the result is a plain 0: subnormal arithmetic would be slow
  const float bounded = x < -104.0f ? 0.0f : (x > 89.0f ? 89.0f : x);
  const float n = (bounded * 1.44269504f + 12582912.0f) - 12582912.0f;
  const float f = bounded - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * f * f + f + 1.0f;
  // two factors, so that neither 2^128 nor 2^-150 is lost on the way
  const int half = (int)n / 2;
  const float scaled =
      p * rf_bits_float((half + 127) << 23) * rf_bits_float(((int)n - half + 127) << 23);
  const float low = x < -104.0f ? 0.0f : scaled;
  return x != x ? x : low;
}
// tanh through exp of a negative number; a short odd polynomial where that would cancel.
RF_DEVICE float rf_tanh(float x) {
  const float size = x < 0.0f ? -x : x;
  const float e = rf_exp(-2.0f * size);
  const float far = (1.0f - e) / (1.0f + e);
  const float s = x * x;
  const float near =
      size * (1.0f + s * (-0.33333334f + s * (0.13333282f + s * (-0.05393797f + s * 0.02080798f))));
  const float result = size < 0.3f ? near : far;
  return x != x ? x : (x < 0.0f ? -result : result);
}
// An odd polynomial near 0, and 1 - exp(polynomial) further out, where erf comes close to 1.
RF_DEVICE float rf_erf(float x) {
  const float size = x < 0.0f ? -x : x;
  const float t = size > 4.0f ? 4.0f : size, s = t * t;
  float p = -5.96761703e-4f;
  p = p * s + 4.99119423e-3f;
  p = p * s - 2.67681349e-2f;
  p = p * s + 1.12819925e-1f;
  p = p * s - 3.76125336e-1f;
  p = p * s + 1.28379166e-1f;
  const float near = p * t + t;
  float q = -1.72853470e-5f * t + 3.83197126e-4f;
  q = q * s + (-3.88396438e-3f * t + 2.42546219e-2f);
  q = q * t - 1.06777877e-1f;
  q = q * t - 6.34846687e-1f;
  q = q * t - 1.28717512e-1f;
  q = q * t - t;
  const float result = t > 0.927734375f ? 1.0f - rf_exp(q) : near;
  return x != x ? x : (x < 0.0f ? -result : result);
}
// log(x) = e * ln(2) + log(m) with m between the root of 1/2 and that of 2; log(1 + f) as a
// polynomial of degree 9.
RF_DEVICE float rf_log(float x) {
  const bool is_small = x < 1.17549435e-38f;  // a subnormal number, or none that has a logarithm
  int bits;
  const float normal = is_small ? x * 33554432.0f : x;
  memcpy(&bits, &normal, 4);
  const int exponent = (bits - 0x3f3504f3) >> 23;
  const float e = (float)(exponent - (is_small ? 25 : 0));
  const float f = rf_bits_float(bits - exponent * (1 << 23)) - 1.0f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const float s = f * f;
  const float low = p * f * s - e * 2.12194440e-4f - 0.5f * s;
  const float finite = e * 0.693359375f + (f + low);
  const float large = x > 3.4028235e38f ? x : finite;
  const float known = x == 0.0f ? -RF_INFINITY : large;
  return !(x >= 0.0f) ? RF_NAN : known;
}
#endif
RF_DEVICE float rf_sqrt(float x) { return sqrtf(x); }
RF_DEVICE float rf_abs(float x) { return fabsf(x); }
RF_DEVICE float rf_pow(float x, float y) { return powf(x, y); }
RF_DEVICE float rf_floor(float x) { return floorf(x); }
RF_DEVICE float rf_ceil(float x) { return ceilf(x); }
RF_DEVICE float rf_round(float x) { return rintf(x); }
RF_DEVICE float rf_sin(float x) { return sinf(x); }
RF_DEVICE float rf_cos(float x) { return cosf(x); }
RF_DEVICE double rf_exp(double x) { return exp(x); }
RF_DEVICE double rf_tanh(double x) { return tanh(x); }
RF_DEVICE double rf_erf(double x) { return erf(x); }
RF_DEVICE double rf_log(double x) { return log(x); }
RF_DEVICE double rf_sqrt(double x) { return sqrt(x); }
RF_DEVICE double rf_abs(double x) { return fabs(x); }
RF_DEVICE double rf_pow(double x, double y) { return pow(x, y); }
RF_DEVICE double rf_floor(double x) { return floor(x); }
RF_DEVICE double rf_ceil(double x) { return ceil(x); }
RF_DEVICE double rf_round(double x) { return rint(x); }
RF_DEVICE double rf_sin(double x) { return sin(x); }
RF_DEVICE double rf_cos(double x) { return cos(x); }
// Through exp of a negative number, so that the smallest results are not lost to its overflow.
template <class T>
RF_DEVICE T rf_sigmoid(T x) {
  const T e = rf_exp(x < 0 ? x : -x);
  const T share = (T)1 / ((T)1 + e);
  return x < 0 ? e * share : share;
}
template <class T>
RF_DEVICE T rf_relu(T x) {
  return x < 0 ? 0 : x;
}
template <class T>
RF_DEVICE T rf_sign(T x) {
  return x > 0 ? 1 : (x < 0 ? -1 : x);  // what is left is 0 or NaN
}
template <class T>
RF_DEVICE T rf_abs(T x) {
  return x < 0 ? -x : x;
}
// Integer power by squaring; a negative exponent gives what an integer can hold of 1 / x^n.
template <class T, class N>
RF_DEVICE T rf_int_pow(T base, N exponent) {
  if (exponent < 0) return base == 1 ? 1 : base == (T)-1 ? (exponent % 2 ? (T)-1 : (T)1) : 0;
  T result = 1;
  for (N left = exponent; left > 0; left /= 2) {
    if (left % 2) result *= base;
    base *= base;
  }
  return result;
}
// Integers never trap: x / 0, which the standard leaves open, is 0, and the least number over -1
// wraps.
template <class T>
RF_DEVICE T rf_divide(T a, T b) {
  const bool negates = (T)-1 < 0 && b == (T)-1;
  return b == 0 ? 0 : (negates ? (T)(0 - (rf_size)a) : (T)(a / (negates ? (T)1 : b)));
}
RF_DEVICE float rf_divide(float a, float b) { return a / b; }
RF_DEVICE double rf_divide(double a, double b) { return a / b; }

struct rf_plus {
  template <class T>
  RF_DEVICE T join(T a, T b) {
    return a + b;
  }
};
struct rf_times {
  template <class T>
  RF_DEVICE T join(T a, T b) {
    return a * b;
  }
};
struct rf_larger {
  template <class T>
  RF_DEVICE T join(T a, T b) {
    return rf_max(a, b);
  }
};
struct rf_smaller {
  template <class T>
  RF_DEVICE T join(T a, T b) {
    return rf_min(a, b);
  }
};
