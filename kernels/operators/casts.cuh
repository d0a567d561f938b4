// The same bits as another type of that size.
template <class T, class F>
RF_DEVICE T rf_bits(F x) {
  T y;
  memcpy(&y, &x, sizeof(T));
  return y;
}

// The power of two that a number from 2^-127 to 2^127 is rounded to: the one above if the fraction
// is at least 1 - kShare / 2^23.
template <unsigned kShare>
RF_DEVICE float rf_power_of_two(float x) {
  const unsigned bits = rf_float_bits(x);
  if (bits > 0x7f800000u) return x;
  // 2^-127 has no implicit one: here the fraction starts a bit later
  const unsigned wide = bits < 0x800000u ? (bits << 1) & 0x7fffffu : bits;
  const unsigned power = (wide + kShare) & 0x7f800000u;
  return rf_float_of(power ? power : 0x400000u);
}
