// Random numbers by their position: Philox 4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", 2011). The counter is the position and the number of the draw
// there, the key is the seed. The first 64 of the 128 bits that it gives.
RF_DEVICE rf_size rf_random_bits(rf_size seed, rf_size position, unsigned draw) {
  unsigned c0 = (unsigned)position, c1 = (unsigned)(position >> 32), c2 = draw, c3 = 0;
  unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const rf_size first = (rf_size)0xD2511F53u * c0, second = (rf_size)0xCD9E8D57u * c2;
    c0 = (unsigned)(second >> 32) ^ c1 ^ k0;
    c2 = (unsigned)(first >> 32) ^ c3 ^ k1;
    c1 = (unsigned)second;
    c3 = (unsigned)first;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (rf_size)c1 << 32 | c0;
}
// Uniform over [0, 1): as many of the highest bits as the type holds exactly.
RF_DEVICE float rf_random_float(rf_size seed, rf_size position, unsigned draw) {
  return (float)(unsigned)(rf_random_bits(seed, position, draw) >> 40) * 5.9604644775390625e-8f;
}
RF_DEVICE double rf_random_double(rf_size seed, rf_size position, unsigned draw) {
  const rf_size bits = rf_random_bits(seed, position, draw) >> 11;
  return (double)bits * 1.1102230246251565404e-16;
}
