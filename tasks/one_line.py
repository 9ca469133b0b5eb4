"""Control characters out of what is written for people: a key may hold any, and on a terminal or in a log they move the
cursor, hide what stands before them, or begin a line that nobody wrote."""

from __future__ import annotations

import logging

_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""C0, DEL, C1; Unicode's own ends of lines; what turns the direction of writing."""
_ESCAPES = {code: _NAMED.get(chr(code), f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}") for code in _CONTROLS}
_WITHIN_LINES = {code: escape for code, escape in _ESCAPES.items() if chr(code) not in "\n\t"}


def one_line(text: str) -> str:
    """Every control character as Python writes it; all else, Korean and emoji among it, as it is."""
    return text.translate(_ESCAPES)


def without_controls(text: str) -> str:
    """The same for a text that may have lines of its own, such as a traceback."""
    return text.translate(_WITHIN_LINES)


def escape_arguments(record: logging.LogRecord) -> None:
    """What is put into a log line has no lines of its own: keys, and the errors that name them."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            one_line(str(value)) if isinstance(value, (str, BaseException)) else value for value in record.args
        )
