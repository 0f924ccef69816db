"""What gives a patient or a person away, as patterns over plain text."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Names shorter than this are in every text by chance.
SHORTEST_NAME = 4
# Names of accounts and hosts that say nothing about a person or a place.
_NOBODY = {"root", "user", "admin", "nobody", "runner", "ubuntu", "localhost", "administrator"}
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_DATES = "|".join(
    (
        rf"(?<![\w.-]){_YEAR}([-/.]){_MONTH}\1{_DAY}(?!\d)",
        rf"(?<![\w.]){_YEAR}{_MONTH}{_DAY}(?![\w.])",
        rf"(?<![\w.]){_DAY}[./]{_MONTH}[./]{_YEAR}(?!\d)",
        rf"\b[0-3]?\d (?:{_MONTHS}) {_YEAR}\b",
    )
)
PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("path", re.compile(r"file:/{1,3}[^\s\"'<>|]+|(?<![\w/.:~<*-])/(?:[\w.@ +-]*[\w.@+-]/)+[\w.@+-]+")),
    (
        "path",
        re.compile(r"(?<![A-Za-z])[A-Za-z]:(?:\\\\?|/)(?![/\\])[\w.@ +-]+(?:[\\/]+[\w.@ +-]+)*|\\\\[\w.-]+\\[\w$.-]+"),
    ),
    ("user", re.compile(r"(?<=/home/)[\w.-]+|(?<=/Users/)[\w.-]+|(?<=\\Users\\)[\w.-]+")),
    ("mail", re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b")),
    ("address", re.compile(r"(?<![\d.])(?!127\.|0\.)(?:\d{1,3}\.){3}\d{1,3}(?![\d.])(?=:\d|/|\s|$|[\"'])")),
    ("date", re.compile(_DATES)),
    # Milliseconds since 1970, of 2001 to 2286, as event logs and QuPath write them.
    ("date", re.compile(r"(?<=[:\s])1\d{12}(?![\d.])")),
    (
        "serial",
        re.compile(
            r"(?i)\b(?:device ?|scanner ?)?(?:serial(?: ?(?:no|number))?|barcode|accession(?: ?number)?|mrn|"
            r"scanscope ?id|patient ?(?:id|name)|birth ?date)\b[\"']?\s*[:=|]\s*[\"']?([A-Za-z0-9][\w./-]{2,})"
        ),
    ),
)
KINDS = ("path", "user", "host", "name", "mail", "address", "date", "serial")


@dataclass(frozen=True, slots=True)
class Known:
    """Words that must not appear: names of slides, patients, sites, scanners and raters, of this account and machine.

    Each word is looked for as a whole, upper and lower case alike.
    """

    words: tuple[tuple[str, str], ...] = ()
    _pattern: re.Pattern[str] | None = field(init=False, default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.words:
            longest_first = sorted({re.escape(word) for _, word in self.words}, key=len, reverse=True)
            joined = re.compile(rf"(?<![^\W_])(?:{'|'.join(longest_first)})(?![^\W_])", re.IGNORECASE)
            object.__setattr__(self, "_pattern", joined)

    @classmethod
    def of(cls, names: Iterable[str]) -> Known:
        """These names, and the account and the machine that the program runs on."""
        words = [("name", name) for name in dict.fromkeys(names) if len(name) >= SHORTEST_NAME]
        for kind, word in (("user", _account()), ("user", Path.home().name), ("host", socket.gethostname())):
            if len(word) >= SHORTEST_NAME and word.lower() not in _NOBODY:
                words.append((kind, word))
        return cls(tuple(dict.fromkeys(words)))

    def found_in(self, text: str) -> Iterator[tuple[str, str, int]]:
        """Kind, word and position of each hit."""
        if self._pattern is None:
            return
        kinds = {word.lower(): kind for kind, word in self.words}
        for match in self._pattern.finditer(text):
            yield kinds[match.group().lower()], match.group(), match.start()


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def found_in(text: str) -> Iterator[tuple[str, str, int]]:
    """Kind, text and position of everything in `text` that a general pattern finds."""
    for kind, pattern in PATTERNS:
        for match in pattern.finditer(text):
            said = match.group(match.lastindex or 0) if kind == "serial" else match.group()
            yield kind, said, match.start()
