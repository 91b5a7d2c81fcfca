"""
What was found out once. Pure.

Takes answers; gives them again for as long as the configuration lives. Bounded: what is long is not kept, and
when there is much of it, it starts anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")

REMEMBERED = 10_000
"""How many answers there are."""

REMEMBERED_LENGTH = 256
"""A longer question and answer, together, are not kept, in bytes."""


class Remembered(Generic[V]):
    """
    @ivar get: gives the answer to a question, or L{None} when it is not known.
    @param stable: whether answers stay true; if not, none is kept.
    @param size: of an answer, in bytes.
    """

    __slots__ = ("_known", "_size", "_stable", "get")

    def __init__(self, stable: bool, size: Callable[[V], int]) -> None:
        self._stable = stable
        self._size = size
        self._known: dict[bytes, V] = {}
        self.get: Callable[[bytes], V | None] = self._known.get

    def add(self, key: bytes, answer: V) -> None:
        """
        Remember an answer.
        """
        if self._stable and len(key) + self._size(answer) <= REMEMBERED_LENGTH:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = answer
