"""Who knows what is over: vector clocks of lanes, brought forward row by row.

A clock is a line of numbers, one for each lane: the rows of that lane before this number are over.
``Clocks`` holds the clock of each lane, and for each event what those knew who signalled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.expressions.regions import Ints
from ramforge.compiler.plan import Entries

Clock = NDArray[np.int32]


class Clocks:
    """The clocks of all lanes while the rows of one launch are gone through in their order."""

    def __init__(self, lanes: int, start: int = 0) -> None:
        """Of every lane everything before row ``start`` is over: the launches before this one."""
        self.over: Clock = np.full((lanes, lanes), start, dtype=np.int32)
        self._told: dict[int, Clock] = {}

    def pass_rows(self, entries: Entries, start: int = 0) -> None:
        """The lanes of these entries have done with them; row 0 of them is row ``start``."""
        self.over[entries.lane, entries.lane] = entries.row + (start + 1)

    def signal(self, event: int, groups: int, group: int, entries: Entries) -> None:
        """Those who wait for these units will know what the lanes know now."""
        told = self._told.get(event)
        if told is None:
            told = self._told[event] = np.zeros((groups, self.over.shape[1]), dtype=np.int32)
        low, high = entries.groups(group)
        order = np.argsort(low, kind="stable")
        low, high, own = low[order], high[order], self.over[entries.lane[order]]
        if (np.diff(high) < 0).any():  # units that lie within other units
            for line, begin, end in zip(own, low, high, strict=True):
                np.maximum(told[begin:end], line, out=told[begin:end])
            return
        counters = np.arange(low[0], high[-1])
        begin = np.searchsorted(high, counters, side="right")
        end = np.searchsorted(low, counters, side="right")
        heard = begin < end  # each counter hears from neighbouring lines
        counters = counters[heard]
        told[counters] = np.maximum(told[counters], largest(own, begin[heard], end[heard]))

    def wait(self, event: int, group: int, entries: Entries) -> None:
        """The lanes of these entries learn what was told about their units."""
        low, high = entries.groups(group)
        heard = largest(self._told[event], low, high)
        lane = entries.lane
        if (np.diff(lane) <= 0).any():  # some lane waits twice
            np.maximum.at(self.over, lane, heard)
        elif lane[-1] - lane[0] == len(lane) - 1:
            own = self.over[lane[0] : lane[-1] + 1]
            np.maximum(own, heard, out=own)
        else:
            self.over[lane] = np.maximum(self.over[lane], heard)

    def forget(self, event: int) -> None:
        """Nobody will wait for this event any more."""
        self._told.pop(event, None)


def largest(table: Clock, begin: Ints, end: Ints) -> Clock:
    """For each (begin, end) the largest of each column in these lines of the table."""
    pairs = begin * (len(table) + 1) + end
    unique, back = np.unique(pairs, return_inverse=True)
    if len(unique) < len(pairs):
        begin, end = unique // (len(table) + 1), unique % (len(table) + 1)
        return largest(table, begin, end)[back]
    width = end - begin
    if len(width) == 1:
        return np.asarray(table[begin[0] : end[0]].max(axis=0, keepdims=True))
    # doubled[k] has the largest of 2**k lines; any range is the union of two such
    power = np.frexp(width)[1] - 1
    found: Clock = np.empty((len(begin), table.shape[1]), dtype=table.dtype)
    for k in range(int(power.max()) + 1):
        if k:
            half = 1 << (k - 1)
            table = np.maximum(table[:-half], table[half:])
        mine = np.flatnonzero(power == k)
        if len(mine):
            found[mine] = np.maximum(table[begin[mine]], table[end[mine] - (1 << k)])
    return found
