"""What each lane knows to be done, by groups of events: which waits are implied by earlier ones.

Every event that somebody will still wait for has a word with a bit for each of its groups. Each
lane has a row of such words, and so has each group that was signalled: what those knew who
signalled it. Whoever waits for a group knows all that afterwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.expressions.regions import Ints

Words = NDArray[np.uint64]
# The groups that an event may have: the bits of a word.
MOST_GROUPS = 64
# Words for events to come, each time that room is made.
SPARE = 32
# _LOWEST[n] has the n lowest bits set, _BIT[n] the one above them
_LOWEST: Words = np.array([(1 << n) - 1 for n in range(MOST_GROUPS + 1)], dtype=np.uint64)
_BIT: Words = np.array([1 << n for n in range(MOST_GROUPS)], dtype=np.uint64)


class Known:
    """The knowledge of all lanes while the rows of a launch are made in their order."""

    def __init__(self, lanes: int) -> None:
        self._lanes: Words = np.zeros((lanes, SPARE), dtype=np.uint64)
        self._told: dict[int, Words] = {}
        self._column: dict[int, int] = {}  # where the word of each event is
        self._end = 0

    def signal(self, event: int, lane: Ints, low: Ints, high: Ints) -> None:
        """Lane ``lane[i]`` does its part of the groups ``low[i] .. high[i]``; both ascend, and all
        groups are done with this.
        """
        if self._end == self._lanes.shape[1]:
            self._compact()
        column = self._column[event] = self._end
        self._end += 1
        group = np.arange(int(high[-1]))
        begin = np.searchsorted(high, group, side="right")
        end = np.searchsorted(low, group, side="right")
        alone = end - begin == 1  # who did a whole group knows that it is done
        np.bitwise_or.at(self._lanes[:, column], lane[begin[alone]], _BIT[group[alone]])
        told = _union(_lines(self._lanes, lane), begin, end)
        told[group, column] |= _BIT[group]
        self._told[event] = told

    def misses(self, event: int, lane: Ints, low: Ints, high: Ints) -> NDArray[np.bool_]:
        """Which of these lanes do not know that these groups are done."""
        wanted = _LOWEST[high] & ~_LOWEST[low]
        return np.asarray((wanted & ~_lines(self._lanes[:, self._column[event]], lane)) != 0)

    def misses_some(self, event: int, lane: Ints) -> NDArray[np.bool_]:
        """Which of these lanes do not know that all of its groups are done."""
        whole = _LOWEST[len(self._told[event])]
        return np.asarray(_lines(self._lanes[:, self._column[event]], lane) != whole)

    def wait(self, event: int, lane: Ints, low: Ints, high: Ints) -> None:
        """These lanes, each of them once, learn that these groups are done, and what that
        implies.
        """
        told = self._told[event]
        new = np.ones(len(lane), dtype=np.bool_)
        new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
        first = new.nonzero()[0]
        heard = _union(told, low[first], high[first])
        width = told.shape[1]
        if lane[-1] - lane[0] == len(lane) - 1:
            own = self._lanes[lane[0] : lane[-1] + 1, :width]
            own |= heard[np.cumsum(new) - 1] if len(first) > 1 else heard
        else:
            self._lanes[lane, :width] |= heard[np.cumsum(new) - 1]

    def forget(self, event: int) -> None:
        """Nobody will wait for this event any more."""
        del self._told[event], self._column[event]

    def _compact(self) -> None:
        """Move the words that are still of use to the front."""
        kept = np.array(list(self._column.values()), dtype=np.int64)  # ascending
        width = len(kept) + SPARE
        self._lanes = _moved(self._lanes, kept, width)
        self._told = {event: _moved(told, kept, width) for event, told in self._told.items()}
        self._column = {event: at for at, event in enumerate(self._column)}
        self._end = len(kept)


def _lines(table: Words, ascending: Ints) -> Words:
    """Some lines of a table; without a copy where they are neighbours."""
    first, last = ascending[0], ascending[-1]
    return table[first : last + 1] if last - first == len(ascending) - 1 else table[ascending]


def _moved(table: Words, kept: Ints, width: int) -> Words:
    """The kept columns, as far as the table has them, and room behind them."""
    found: Words = np.zeros((len(table), width), dtype=np.uint64)
    inside = kept[: np.searchsorted(kept, table.shape[1])]
    found[:, : len(inside)] = table[:, inside]
    return found


def _union(table: Words, begin: Ints, end: Ints) -> Words:
    """For each (begin, end) all bits of these lines of the table."""
    if len(begin) == 1:
        return np.asarray(np.bitwise_or.reduce(table[begin[0] : end[0]], axis=0)[None])
    wide = int((end - begin).max())
    if wide <= 4:
        found = table[begin]
        for place in range(1, wide):
            found |= table[np.minimum(begin + place, end - 1)]
        return found
    if (end == len(table)).any():
        table = np.concatenate([table, table[-1:]])
    pairs = np.empty(2 * len(begin), dtype=np.int64)
    pairs[::2], pairs[1::2] = begin, end
    return np.asarray(np.bitwise_or.reduceat(table, pairs, axis=0)[::2])
