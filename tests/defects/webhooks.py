"""Defects of webhooks, those that the service sends and those that it takes."""

from __future__ import annotations

from dataclasses import replace

from tests.defects.defect import planted_in

_signatures = planted_in("service/signatures.py")
_incoming = planted_in("service/incoming.py")
_outbox = planted_in("service/outbox.py")

_COMPARED = "if not hmac.compare_digest(expected.encode(), signature.encode()):"
_STALE = "if abs(now - int(timestamp)) > TOLERANCE_SECONDS:"
_SIGNATURE = "webhooks.incoming-signature"
_NEW = "        if not cursor.rowcount:\n"
_SIGN = 'SIGNATURE_HEADER: sign(due["secret"], now, body),'

DEFECTS = (
    _incoming(
        "signature-under-another-id",
        "ON CONFLICT DO NOTHING",
        "ON CONFLICT (id) DO NOTHING",
        probe="webhooks.incoming-replayed",
        what="A signature that is sent again under another id ends in 500.",
    ),
    _signatures(
        "signature-not-compared",
        _COMPARED,
        "if not signature.startswith(_VERSION):",
        probe=_SIGNATURE,
        what="A signature must be there, and may be any.",
    ),
    _signatures(
        "no-signature-is-fine",
        _COMPARED,
        "if signature and not hmac.compare_digest("
        "expected.encode(), signature.encode()):",
        probe=_SIGNATURE,
        what="Only a signature that is there is compared.",
    ),
    _signatures(
        "signature-by-its-beginning",
        _COMPARED,
        "if not signature or not expected.startswith(signature):",
        probe=_SIGNATURE,
        what="A signature that was cut short is right.",
    ),
    _signatures(
        "signature-of-parsed-json",
        "    expected = sign(secret, int(timestamp), body)\n",
        "    import json\n\n"
        "    body = json.dumps(json.loads(body)).encode()\n"
        "    expected = sign(secret, int(timestamp), body)\n",
        probe=_SIGNATURE,
        what="What is verified is JSON written anew, not the bytes that came.",
    ),
    _signatures(
        "stale-webhook",
        _STALE,
        "if False:",
        probe=_SIGNATURE,
        what="A webhook is accepted however old it is.",
    ),
    _signatures(
        "stale-webhook-of-a-day",
        "TOLERANCE_SECONDS = 300",
        "TOLERANCE_SECONDS = 86_400",
        probe=_SIGNATURE,
        what="A webhook is accepted for a day.",
    ),
    _signatures(
        "webhook-of-tomorrow",
        _STALE,
        "if now - int(timestamp) > TOLERANCE_SECONDS:",
        probe=_SIGNATURE,
        what="A webhook from the future is accepted, and can be replayed until then.",
    ),
    _incoming(
        "unsigned-is-forbidden",
        'raise HTTPException(401, "the signature is not valid") from None',
        'raise HTTPException(500, "the signature is not valid") from None',
        probe=_SIGNATURE,
        what="A wrong signature is an error of the service, which senders repeat.",
    ),
    _incoming(
        "unknown-type-is-an-error",
        'raise HTTPException(422, "the type of the event is not known")',
        "raise KeyError(event.type)",
        probe="webhooks.incoming-malformed",
        what="An event of a type that nobody knows ends in 500.",
    ),
    _incoming(
        "unknown-type-is-accepted",
        "if kind is None and is_strict:",
        "if kind is None and not is_strict:",
        probe="webhooks.incoming-malformed",
        what="The setting of strict events is read the wrong way.",
    ),
    _incoming(
        "id-with-another-body",
        '    if not row["same"]:\n',
        "    if False:\n",
        probe="webhooks.incoming-replayed",
        what="Another body under an id that was used counts as a duplicate.",
    ),
    _incoming(
        "duplicate-processed-twice",
        _NEW,
        "        if False:\n",
        probe="webhooks.incoming-duplicate",
        what="A delivery that comes again is processed again.",
    ),
    replace(
        _incoming(
            "duplicates-known-in-memory",
            _NEW,
            "        known = state.__dict__.setdefault('known', set())\n"
            "        is_new = identifier not in known\n"
            "        known.add(identifier)\n"
            "        if not is_new:\n",
            probe="webhooks.incoming-duplicate",
            what="The process remembers what it took, and forgets it at a restart.",
        ),
        restarts=True,
    ),
    _outbox(
        "nothing-is-delivered",
        "                if due is None:\n",
        "                if due is None or due:\n",
        probe="webhooks.outgoing",
        what="Deliveries are taken from the outbox, and never sent.",
    ),
    _outbox(
        "sent-without-signature",
        _SIGN,
        "",
        probe="webhooks.outgoing",
        what="A delivery has no signature.",
    ),
    _outbox(
        "signed-with-the-hash-of-the-secret",
        _SIGN,
        "SIGNATURE_HEADER: sign(__import__('hashlib').sha256("
        'due["secret"].encode()).hexdigest(), now, body),',
        probe="webhooks.outgoing",
        what="A delivery is signed with what is stored of the secret.",
    ),
    _outbox(
        "signed-before-it-was-written",
        _SIGN,
        'SIGNATURE_HEADER: sign(due["secret"], now, json.dumps(json.loads(body), '
        "sort_keys=True, separators=(',', ':')).encode()),",
        probe="webhooks.outgoing",
        what="What is signed is JSON in another form than what is sent.",
    ),
    _outbox(
        "timestamp-in-milliseconds",
        "now = int(time.time())",
        "now = int(time.time() * 1000)",
        probe="webhooks.outgoing",
        what="The timestamp is in milliseconds.",
    ),
    _outbox(
        "timestamp-of-another-clock",
        "now = int(time.time())",
        "now = int(time.time()) - 3600",
        probe="webhooks.outgoing",
        what="The timestamp is an hour old, as of another time zone.",
    ),
    _outbox(
        "request-id-not-passed-on",
        '"X-Request-ID": due["request_id"],',
        "",
        probe="webhooks.outgoing",
        what="A delivery does not name the request that caused it.",
    ),
    _signatures(
        "signature-without-timestamp",
        'signed = f"{timestamp}.".encode() + body',
        "signed = body",
        probe="webhooks.outgoing",
        what="The timestamp is not signed, so that whoever replays may renew it.",
    ),
)
