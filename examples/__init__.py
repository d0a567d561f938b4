"""Runnable programs, and the networks that we measure."""
