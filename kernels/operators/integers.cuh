// Remainders. Integers never trap: x mod 0, which the standard leaves open, is 0.
template <class T>
RF_DEVICE T rf_remainder(T a, T b) {
  const bool trivial = b == 0 || ((T)-1 < 0 && b == (T)-1);
  return trivial ? (T)0 : (T)(a % (trivial ? (T)1 : b));
}
RF_DEVICE float rf_remainder(float a, float b) { return fmodf(a, b); }
RF_DEVICE double rf_remainder(double a, double b) { return fmod(a, b); }

// With the sign of the divisor.
template <class T>
RF_DEVICE T rf_modulo(T a, T b) {
  const T rest = rf_remainder(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? (T)(rest + b) : rest;
}
RF_DEVICE float rf_modulo(float a, float b) {
  const float rest = fmodf(a, b);
  const float shifted = (rest < 0) != (b < 0) ? rest + b : rest;
  return rest == 0 ? copysignf(0.0f, b) : shifted;
}
RF_DEVICE double rf_modulo(double a, double b) {
  const double rest = fmod(a, b);
  const double shifted = (rest < 0) != (b < 0) ? rest + b : rest;
  return rest == 0 ? copysign(0.0, b) : shifted;
}

// Shifts by any number: what is shifted out is lost, also where that is everything.
template <class T>
RF_DEVICE T rf_shift_left(T x, T count) {
  return count < 0 || (rf_size)count >= 8 * sizeof(T) ? (T)0 : (T)((rf_size)x << (int)count);
}
template <class T>
RF_DEVICE T rf_shift_right(T x, T count) {
  const bool all = count < 0 || (rf_size)count >= 8 * sizeof(T);
  return all ? (T)(x < 0 ? -1 : 0) : (T)(x >> (int)count);
}
