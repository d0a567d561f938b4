"""Measuring: always interleaved, always verified first."""
