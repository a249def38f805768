"""Malformed: request bodies, frames and messages that a service must refuse."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

# Stands in every text, to be known again where one is repeated or was stored.
MARK = "opskit-smoke-input"
_DEPTH = 10_000
# More digits than Python, and many parsers, turn into a number.
_DIGITS = 5_000
_JSON = "application/json"
_OTHER_KINDS = (
    "text/plain",
    "application/xml",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
)
_BODY_TYPES = ("[]", '"text"', "null", "true", "1", "{}")
_TEXT_TYPES = ("1", "null", "true", "[]", "{}")
_NUMBERS = {
    **{each: each for each in ("1e400", "-1e400", "-0", "NaN", "Infinity")},
    "10^400": "1" + 400 * "0",
    "10^5000": "1" + _DIGITS * "0",
}
_BAD_TEXTS = {
    "bytes that are no UTF-8": b"\xff\xfe",
    "an overlong slash": b"\xc0\xaf",
    "half a character": b"\xe2\x82",
    "half a surrogate pair": rb"\ud800",
    "a NUL character": rb"\u0000",
    "a raw NUL": b"\0",
}
_LISTS = _DEPTH * "[" + _DEPTH * "]"
_MASK = b"\x0f\xf0\x33\xcc"


@dataclass(frozen=True, kw_only=True)
class Body:
    """A body, in a few words for people."""

    name: str
    content: bytes
    kind: str = _JSON


def bodies(field: str, text_max: int) -> Mapping[str, tuple[Body, ...]]:
    """Return what a route must refuse that takes an object with a field of text."""
    name = json.dumps(field)
    whole = f'{{{name}: "{MARK}"}}'

    def of(value: str) -> bytes:
        return f"{{{name}: {value}}}".encode()

    return {
        "malformed-json": _bodies(
            {
                "an empty body": b"",
                "half an object": whole[:-1].encode(),
                "a comma too many": f"{whole[:-1]},}}".encode(),
                "single quotes": whole.replace('"', "'").encode(),
                "text after the object": f"{whole} {whole}".encode(),
                "a NUL after the object": f"{whole}\0".encode(),
                "the same key twice": f"{whole[:-1]}, {whole[1:]}".encode(),
            }
        ),
        "wrong-types": _bodies(
            {f"{each} as the body": each.encode() for each in _BODY_TYPES}
            | {f"{each} as a text": of(each) for each in _TEXT_TYPES}
        ),
        "huge-numbers": _bodies(
            {f"{label} as a text": of(number) for label, number in _NUMBERS.items()}
        ),
        "deep-nesting": _bodies(
            {
                "10,000 lists as the body": _LISTS.encode(),
                "10,000 lists without an end": _DEPTH * b"[",
                "10,000 lists as a text": of(_LISTS),
                "10,000 objects as a text": of(_DEPTH * '{"":' + "1" + _DEPTH * "}"),
            }
        ),
        "bad-encoding": _bodies(
            {
                label: of(f'"{MARK}?"').replace(b"?", each)
                for label, each in _BAD_TEXTS.items()
            }
        ),
        "content-type": tuple(
            Body(name=kind, content=whole.encode(), kind=kind) for kind in _OTHER_KINDS
        ),
        "long-text": _bodies(
            {f"{text_max + 1} characters": of(f'"{MARK.ljust(text_max + 1, "x")}"')}
        ),
    }


def _bodies(contents: Mapping[str, bytes]) -> tuple[Body, ...]:
    return tuple(Body(name=name, content=each) for name, each in contents.items())


def _frame(first: int, payload: bytes, *, length: bytes | None = None) -> bytes:
    """Return a frame as a client sends it, masked."""
    masked = bytes(each ^ _MASK[at % 4] for at, each in enumerate(payload))
    size = length or bytes([0x80 | len(payload)])
    return bytes([first]) + size + _MASK + masked


# Sent as they are; messages are put into frames that are right.
FRAMES: Mapping[str, bytes] = {
    "reserved bits": _frame(0xB1, b"{}"),
    "a reserved opcode": _frame(0x83, b"{}"),
    "a frame without a mask": b"\x81\x02{}",
    "text that is no UTF-8": _frame(0x81, b"\xff\xfe"),
    "a ping of 126 bytes": _frame(
        0x89, 126 * b"x", length=b"\xfe" + struct.pack("!H", 126)
    ),
    "a ping in parts": _frame(0x09, b"x"),
    "a continuation of nothing": _frame(0x80, b"x"),
    "a close of one byte": _frame(0x88, b"x"),
    "a frame of 2^62 bytes": _frame(
        0x82, b"x", length=b"\xff" + struct.pack("!Q", 2**62)
    ),
}

MESSAGES: Mapping[str, str | bytes] = {
    "no JSON": '{"type":',
    "an empty text": "",
    "null": "null",
    "a list": "[]",
    "a number": "1e400",
    "no type": "{}",
    "an unknown type": json.dumps({"type": MARK}),
    "a type that is a list": '{"type": [1]}',
    "10,000 lists": _LISTS,
    "bytes": b"\xff\x00\xfe",
}
