"""Ids that come one by one -> text that only ever grows.

What is handed out never has to be taken back: no character of which bytes are still to come, and
nothing that may turn out to be the beginning of a stop string. All that was handed out, together,
is the text of the answer.
"""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
"""A tokenizer's `decode`."""

_REPLACEMENT = "\ufffd"
"""Character that decoders write for bytes that do not form a character, or not yet."""
_CONTEXT = 16
"""Ids before the answer that are decoded with it: they decide whether it begins with a space."""


class IncrementalDetokenizer:
    """The text of one answer.

    Args:
        decode: ids to text.
        stop: texts that end the answer and do not belong to it.
        context: the ids before the answer, if it continues a text; empty for a separate text.

    Attributes:
        stopped: a stop string has appeared.
    """

    def __init__(
        self, decode: Decode, stop: Sequence[str] = (), context: Sequence[int] = ()
    ) -> None:
        self._decode, self._stop = decode, stop
        # Decoded again at each step are only the ids since the text last grew, and those before
        # them, down to where it grew before that: a text's first word is decoded differently.
        self._ids = list(context[-_CONTEXT:])
        self._read = len(self._ids)
        self._known = decode(self._ids) if self._ids else ""
        self._held = ""
        self.stopped = False

    def add(self, id: int) -> str:
        """Take one id; returns the text that is now certain."""
        self._ids.append(id)
        text = self._decode(self._ids)
        if text.endswith(_REPLACEMENT):
            return ""
        return self._advance(text)

    def close(self) -> str:
        """The rest of the text, when no id follows."""
        rest = self._advance(self._decode(self._ids)) if self._ids else ""
        held, self._held = self._held, ""
        return "" if self.stopped else rest + held

    def _advance(self, text: str) -> str:
        new = text[_common(self._known, text) :]
        if not new:
            return ""
        self._ids = self._ids[self._read :]
        self._read = len(self._ids)
        self._known = self._decode(self._ids)
        return self._release(self._held + new)

    def _release(self, text: str) -> str:
        """Cut before the first stop string, and hold back what may be the beginning of one."""
        # The one that ends first, so that it does not matter how the text was cut into ids.
        ends = [(place + len(s), place) for s in self._stop if (place := text.find(s)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)[1]]
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            end = text[-length:]
            if any(stop.startswith(end) for stop in self._stop):
                self._held = end
                return text[:-length]
        self._held = ""
        return text


def _common(one: str, two: str) -> int:
    """Characters that two texts begin with together."""
    if two.startswith(one):
        return len(one)
    differ = (n for n, (x, y) in enumerate(zip(one, two, strict=False)) if x != y)
    return next(differ, min(len(one), len(two)))
