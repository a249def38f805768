"""Defects of what is made of malformed input."""

from __future__ import annotations

from dataclasses import replace

from tests.defects.defect import Defect, Edit, planted_in

_documents = planted_in("service/documents.py")
_errors = planted_in("service/errors.py")
_gate = planted_in("service/gate.py")
_pages = planted_in("service/pages.py")
_server = planted_in("service/server.py")
_streams = planted_in("service/streams.py")
_tasks = planted_in("service/tasks.py")

_CAUGHT = "    except (ValueError, RecursionError) as error:\n"
_TOLD = "        return answer(422, _told(error))\n"
_REQUEST = "                _StrictRequest(request.scope, request.receive)\n"
_GONE = '            raise WebSocketDisconnect(message["code"])\n'
_TITLE = "Annotated[Text, Field(min_length=1, max_length=200)]"
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
    _documents(
        "the-last-of-two-keys-wins",
        "    if len(found) != len(pairs):\n",
        "    if not isinstance(pairs, list):\n",
        probe="input.malformed-json",
        what="The same key twice is accepted; another program may read the first.",
    ),
    Defect(
        name="huge-number-is-an-error",
        what="A whole number with 400 digits is no float, and ends in 500.",
        probe="input.huge-numbers",
        edits=(
            Edit(
                file="service/documents.py",
                old="    if len(digits) > _DIGITS_MAX:\n"
                '        raise ValueError("a number is too long")\n'
                "    return int(digits)\n",
                new="    return int(float(digits))\n",
            ),
            Edit(
                file="service/documents.py",
                old=_CAUGHT,
                new="    except OverflowError:\n"
                '        raise HTTPException(500, "internal error") from None\n'
                + _CAUGHT,
            ),
        ),
    ),
    _documents(
        "every-content-type-is-json",
        _REQUEST,
        """\
                _StrictRequest(
                    dict(
                        request.scope,
                        headers=[
                            *(
                                each
                                for each in request.scope["headers"]
                                if each[0] != b"content-type"
                            ),
                            (b"content-type", b"application/json"),
                        ],
                    ),
                    request.receive,
                )
""",
        probe="input.content-type",
        what="A body is read as JSON whatever its type, so that any site may send it.",
    ),
    _tasks(
        "text-of-any-length",
        _TITLE,
        "Annotated[Text, Field(min_length=1)]",
        probe="input.long-text",
        what="A text is stored however long it is.",
    ),
    _pages(
        "size-of-nothing",
        "        default=20, ge=1,",
        "        default=20, ge=0,",
        probe="input.invalid-urls",
        what="A page of no items may be asked for.",
    ),
    _tasks(
        "filter-reaches-the-database",
        "    status: Status | None = None\n",
        "    status: str | None = None\n",
        probe="input.invalid-urls",
        what="A zero byte in a filter is refused by PostgreSQL only, and ends in 500.",
    ),
    _gate(
        "path-that-is-no-utf-8-is-an-error",
        '        if not scope["path"].startswith("/api/"):\n',
        "        import urllib.parse\n\n"
        '        raw = scope.get("raw_path", b"").decode()\n'
        '        urllib.parse.unquote(raw, errors="strict")\n'
        '        if not scope["path"].startswith("/api/"):\n',
        probe="input.strange-urls",
        what="A path that is no UTF-8 ends in 500.",
    ),
    _gate(
        "long-path-is-an-error",
        '        if not scope["path"].startswith("/api/"):\n',
        '        assert len(scope["path"]) < 2048, "does not fit into the column"\n'
        '        if not scope["path"].startswith("/api/"):\n',
        probe="input.strange-urls",
        what="A path of 4,000 characters ends in 500.",
    ),
    replace(
        _streams(
            "broken-websocket-keeps-its-place",
            _GONE,
            '            if message["code"] not in (1000, 1001):\n'
            '                websocket.scope["app"].state.service.hub._listeners_max -= 1\n'
            + _GONE,
            probe="input.websocket-frames",
            what="A WebSocket that breaks off keeps its place, until there is none left.",
        ),
        settings={"streams_max": "6"},
    ),
    _server(
        "frames-of-any-size",
        "        ws_max_size=_WEBSOCKET_BYTES_MAX,\n",
        "        ws_max_size=2**63 - 1,\n",
        probe="input.websocket-frames",
        what="The rest of a frame is awaited, however long it says that it is.",
    ),
    _streams(
        "malformed-message-ends-the-websocket",
        "    except (ValueError, RecursionError):\n",
        "    except RecursionError:\n",
        probe="input.websocket-messages",
        what="A message that is no JSON ends the WebSocket with 1011.",
    ),
    _streams(
        "unknown-message-is-accepted",
        '            return _error("the types are: ping, subscribe")\n',
        '            return {"type": "ok"}\n',
        probe="input.websocket-messages",
        what="A message of an unknown type is answered as if it were done.",
    ),
)
