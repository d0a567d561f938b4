"""The operators: what each output element is. Every module here is imported, so that a new one is
found by being there.
"""
