"""A bounded cache that a thread of its own fills with what will be needed soon."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class PieceCache(Generic[Key, Value]):
    """Values by key, of at most `capacity` in size altogether, but for those that somebody wants and has not released yet.

    Not for several threads at once: only `read` is called in another one.

    Attributes:
        size: of all that is there or on its way.
        hits, misses: how often what was wanted was there or on its way, and how often it had to be read.
    """

    def __init__(self, read: Callable[[Key], Value], size_of: Callable[[Key], int], capacity: int) -> None:
        self.capacity = capacity
        self.size = self.hits = self.misses = 0
        self._read, self._size_of = read, size_of
        self._values: OrderedDict[Key, Future[Value]] = OrderedDict()  # what was not wanted for the longest time comes first
        self._users: Counter[Key] = Counter()
        self._thread: ThreadPoolExecutor | None = None  # started when there is something to read

    def want(self, keys: Iterable[Key]) -> None:
        """Begin to read what is not there; it stays until it is released as often as it was wanted."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="replay")
        for key in keys:
            self._users[key] += 1
            if key in self._values:
                self.hits += 1
                self._values.move_to_end(key)
            else:
                self.misses += 1
                self.size += self._size_of(key)
                self._values[key] = self._thread.submit(self._read, key)

    def get(self, key: Key) -> Value:
        """A wanted value, as soon as it is read. Raises what `read` raised."""
        return self._values[key].result()

    def release(self, keys: Iterable[Key]) -> None:
        """Say that wanted values were used; where there are too many, those wanted least lately go."""
        for key in keys:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key]
        while self.size > self.capacity:
            oldest = next((key for key in self._values if key not in self._users), None)
            if oldest is None:
                return
            del self._values[oldest]
            self.size -= self._size_of(oldest)
