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

    def raw(value: bytes) -> bytes:
        return of(f'"{MARK}?"').replace(b"?", value)

    return {
        "malformed-json": (
            Body(name="an empty body", content=b""),
            Body(name="half an object", content=whole[:-1].encode()),
            Body(name="a comma too many", content=f"{whole[:-1]},}}".encode()),
            Body(name="single quotes", content=whole.replace('"', "'").encode()),
            Body(name="text after the object", content=f"{whole} {whole}".encode()),
            Body(name="a NUL after the object", content=f"{whole}\0".encode()),
            Body(
                name="the same key twice",
                content=f'{{{name}: "{MARK}", {name}: "{MARK}"}}'.encode(),
            ),
        ),
        "wrong-types": tuple(
            Body(name=f"{value} as the body", content=value.encode())
            for value in ("[]", '"text"', "null", "true", "1", "{}")
        )
        + tuple(
            Body(name=f"{value} as a text", content=of(value))
            for value in ("1", "null", "true", "[]", "{}")
        ),
        "huge-numbers": tuple(
            Body(name=f"{label} as a text", content=of(value))
            for label, value in {
                **{each: each for each in ("1e400", "-1e400", "-0", "NaN", "Infinity")},
                "10^400": "1" + 400 * "0",
                "10^5000": "1" + _DIGITS * "0",
            }.items()
        ),
        "deep-nesting": (
            Body(
                name="10,000 lists as the body",
                content=_DEPTH * b"[" + _DEPTH * b"]",
            ),
            Body(name="10,000 lists without an end", content=_DEPTH * b"["),
            Body(
                name="10,000 lists as a text",
                content=of(_DEPTH * "[" + _DEPTH * "]"),
            ),
            Body(
                name="10,000 objects as a text",
                content=of(_DEPTH * '{"":' + "1" + _DEPTH * "}"),
            ),
        ),
        "bad-encoding": (
            Body(name="bytes that are no UTF-8", content=raw(b"\xff\xfe")),
            Body(name="an overlong slash", content=raw(b"\xc0\xaf")),
            Body(name="half a character", content=raw(b"\xe2\x82")),
            Body(name="half a surrogate pair", content=raw(rb"\ud800")),
            Body(name="a NUL character", content=raw(rb"\u0000")),
            Body(name="a raw NUL", content=raw(b"\0")),
        ),
        "content-type": tuple(
            Body(name=kind, content=whole.encode(), kind=kind)
            for kind in (
                "text/plain",
                "application/xml",
                "application/x-www-form-urlencoded",
                "multipart/form-data",
            )
        ),
        "long-text": (
            Body(
                name=f"{text_max + 1} characters",
                content=of(f'"{MARK.ljust(text_max + 1, "x")}"'),
            ),
        ),
    }


def _frame(first: int, payload: bytes, *, length: bytes | None = None) -> bytes:
    """Return a frame as a client sends it, masked."""
    masked = bytes(each ^ _MASK[at % 4] for at, each in enumerate(payload))
    size = length or bytes([0x80 | len(payload)])
    return bytes([first]) + size + _MASK + masked


# Sent as they are; messages are put into frames that are right.
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
    "10,000 lists": _DEPTH * "[" + _DEPTH * "]",
    "bytes": b"\xff\x00\xfe",
}
