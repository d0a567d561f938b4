"""Who knows what is over: vector clocks of lanes, brought forward row by row.

A clock is a line of numbers, one for each lane: the rows of that lane before this number are over.
``Clocks`` holds the clock of each lane, and for each event what those knew who signalled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.expressions.regions import Ints
from ramforge.compiler.plan import Row

Clock = NDArray[np.int32]


class Clocks:
    """The clocks of all lanes while the rows of one launch are gone through in their order."""

    def __init__(self, lanes: int, start: int = 0) -> None:
        """Of every lane everything before row ``start`` is over: the launches before this one."""
        self.over: Clock = np.full((lanes, lanes), start, dtype=np.int32)
        self._told: dict[int, Clock] = {}

    def pass_row(self, number: int, row: Row) -> None:
        """The lanes of a row have done with it."""
        lanes = np.arange(row.lane, row.lane + row.lanes)
        self.over[lanes, lanes] = number + 1

    def signal(self, event: int, groups: int, group: int, row: Row) -> None:
        """Those who wait for these units will know what the lanes of the row know now."""
        own = self.over[row.lane : row.lane + row.lanes]
        told = self._told.get(event)
        if told is None:
            told = self._told[event] = np.zeros((groups, self.over.shape[1]), dtype=np.int32)
        first = row.firsts()
        low, high = first // group, (first + row.units - 1) // group + 1
        if low[0] == low[-1] and high[0] == high[-1] == low[0] + 1:  # all to one counter
            np.maximum(told[low[0]], own.max(axis=0), out=told[low[0]])
        elif row.step >= 0:  # each counter hears from neighbouring lanes
            counters = np.arange(low[0], high[-1])
            begin = np.searchsorted(high, counters, side="right")
            end = np.searchsorted(low, counters, side="right")
            heard = begin < end
            counters = counters[heard]
            told[counters] = np.maximum(told[counters], largest(own, begin[heard], end[heard]))
        else:
            for lane in range(row.lanes):
                part = told[low[lane] : high[lane]]
                np.maximum(part, own[lane], out=part)

    def wait(self, event: int, group: int, row: Row) -> None:
        """The lanes of a row learn what was told about these units."""
        first = row.firsts()
        low, high = first // group, (first + row.units - 1) // group + 1
        own = self.over[row.lane : row.lane + row.lanes]
        told = self._told[event]
        # lanes that wait for the same stand next to each other
        starts = np.arange(0, row.lanes, row.per if row.step else row.lanes)
        heard = largest(told, low[starts], high[starts])
        if len(starts) == 1:
            np.maximum(own, heard[0], out=own)
        else:
            np.maximum(own, np.repeat(heard, row.per, axis=0)[: row.lanes], out=own)

    def forget(self, event: int) -> None:
        """Nobody will wait for this event any more."""
        self._told.pop(event, None)


def largest(table: Clock, begin: Ints, end: Ints) -> Clock:
    """For each (begin, end) the largest of each column in these lines of the table."""
    if len(begin) == 1:
        return np.asarray(table[begin[0] : end[0]].max(axis=0, keepdims=True))
    width = end - begin
    if (width == 1).all():
        return table[begin]
    if int(width.max()) <= 4:
        found = table[begin]
        for place in range(1, int(width.max())):
            found = np.maximum(found, table[np.minimum(begin + place, end - 1)])
        return found
    padded = np.concatenate([table, table[-1:]])
    pairs = np.stack([begin, end], axis=1).ravel()
    return np.asarray(np.maximum.reduceat(padded, pairs, axis=0)[::2])
