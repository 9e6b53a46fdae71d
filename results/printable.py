"""Text of runs as terminals and files can hold it: what a run wrote may be anything that fits into a string.

A lone surrogate (half of a character, as file names that are no UTF-8 give) cannot be encoded, and a control character
would steer the terminal. Both are shown as their number. Bookkeeping of the suite; no part of the paper.
"""

from __future__ import annotations

import re

_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    r"""Return `text` with everything that cannot be written as UTF-8 or would steer a terminal as \x1b or \udc80."""
    return _UNSHOWN.sub(_number, text)


def _number(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
