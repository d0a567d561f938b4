"""``python -m ramforge.runtime.cli`` is the ``ramforge`` script."""

from ramforge.runtime.cli import main

main()
