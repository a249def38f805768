"""Defects of what is made of malformed input."""

from __future__ import annotations

from tests.defects.defect import Defect, Edit, planted_in

_documents = planted_in("service/documents.py")
_errors = planted_in("service/errors.py")

_CAUGHT = "    except (ValueError, RecursionError) as error:\n"
_TOLD = "        return answer(422, _told(error))\n"
_STRICT = 'ConfigDict(extra="forbid", strict=True)'

DEFECTS = (
    _documents(
        "malformed-json-is-an-error",
        "raise HTTPException(400, f",
        "raise HTTPException(500, f",
        probe="input.malformed-json",
        what="JSON that is none ends in 500.",
    ),
    _documents(
        "bad-utf-8-is-an-error",
        _CAUGHT,
        "    except UnicodeError:\n"
        '        raise HTTPException(500, "internal error") from None\n' + _CAUGHT,
        probe="input.bad-encoding",
        what="Bytes that are no UTF-8 end in 500.",
    ),
    Defect(
        name="deep-nesting-is-an-error",
        what="Arrays in arrays exhaust the stack, and end in 500.",
        probe="input.deep-nesting",
        edits=(
            Edit(
                file="service/documents.py",
                old=_CAUGHT,
                new="    except RecursionError:\n"
                '        raise HTTPException(500, "internal error") from None\n'
                + _CAUGHT,
            ),
            Edit(
                file="service/documents.py",
                old="    if depth == 0:\n",
                new="    if depth == 0 and depth:\n",
            ),
        ),
    ),
    _documents(
        "types-are-guessed",
        _STRICT,
        'ConfigDict(extra="forbid", coerce_numbers_to_str=True)',
        probe="input.wrong-types",
        what="A number is taken where a text must be.",
    ),
    _errors(
        "invalid-is-an-error",
        _TOLD,
        "        return answer(500, _told(error))\n",
        probe="input.wrong-types",
        what="What does not match the schema ends in 500.",
    ),
    _errors(
        "stack-trace",
        "return answer(422, _told(error))",
        'return answer(422, "".join(__import__("traceback").format_exception(error)))',
        probe="input.wrong-types",
        what="With debug on, an error answer holds the stack.",
    ),
    Defect(
        name="nul-reaches-the-database",
        what="A zero byte in a text is refused by PostgreSQL only, and ends in 500.",
        probe="input.bad-encoding",
        edits=(
            Edit(
                file="service/documents.py",
                old='    if any(ord(each) < 32 and each not in "\\t\\n" for each in text):\n',
                new="    if not isinstance(text, str):\n",
            ),
        ),
    ),
)
