"""Compilers for the emitted text (host C++, NVRTC, nvcc) and the store of what they made."""
