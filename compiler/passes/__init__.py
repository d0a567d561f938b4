"""The passes: each a pure function from Graph to Graph, in a file of its own, that gives the same
object back if
nothing changed. Their order, and why, is in ``ramforge.compiler.pipeline``.
"""
