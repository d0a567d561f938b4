// A product that is rounded by itself, and never fused with the sum it is in. GCC forgets
// __builtin_assoc_barrier in loops that it makes vector code of, but fuses nothing into an fma.
#if defined(__CUDACC__)
RF_DEVICE float rf_product(float a, float b) { return __fmul_rn(a, b); }
RF_DEVICE double rf_product(double a, double b) { return __dmul_rn(a, b); }
#elif defined(__clang__)
template <class T>
RF_DEVICE T rf_product(T a, T b) {
#pragma clang fp contract(off)
  return a * b;
}
#elif defined(__FP_FAST_FMA) && defined(__FP_FAST_FMAF)
RF_DEVICE float rf_product(float a, float b) { return __builtin_fmaf(a, b, -0.0f); }
RF_DEVICE double rf_product(double a, double b) { return __builtin_fma(a, b, -0.0); }
#else
template <class T>
RF_DEVICE T rf_product(T a, T b) {
  const volatile T product = a * b;
  return product;
}
#endif
