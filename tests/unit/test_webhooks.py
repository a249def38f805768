"""Webhooks: signatures that independent code verifies, and how often one is sent."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from opskit.config import Settings
from opskit.watch import deliveries
from opskit.watch.deliveries import deliver
from opskit.watch.receivers import signed, webhooks
from tests.receivers import Receiver, Request, receiver
from tests.unit.conftest import LoadConfig

EVENT = {"type": "backup.ok", "data": {"name": "Größe", "n": 1}}
BASE64 = base64.b64encode(bytes(range(32))).decode()
Configured = Callable[[Receiver, str], Settings]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "_PAUSES_SECONDS", (0.0, 0.0))


@pytest.fixture
def configured(load_config: LoadConfig, tmp_path: Path) -> Configured:
    """Return a function that configures a webhook with a secret."""

    def configured(one: Receiver, secret: str) -> Settings:
        path = tmp_path / "secret"
        path.write_text(f"{secret}\n")
        path.chmod(0o600)
        return load_config(
            f'[[notify.webhooks]]\nurl = "{one.url}/hook"\nsecret_file = "{path}"'
        )

    return configured


def _sent(settings: Settings) -> list[str]:
    return deliver(list(webhooks(settings, EVENT)))


@pytest.mark.parametrize(
    ("secret", "for_the_library"),
    [
        (f"whsec_{BASE64}", f"whsec_{BASE64}"),
        (BASE64, BASE64),
        (BASE64, BASE64.encode()),
        ("not base64!", b"not base64!"),
    ],
)
def test_the_library_of_standard_webhooks_verifies_a_message(
    secret: str, for_the_library: Any, configured: Configured
) -> None:
    """With the secret as the file has it, and not after a change of one byte."""
    with receiver() as one:
        assert _sent(configured(one, secret)) == [""]

    (got,) = one.requests
    verifier = Webhook(for_the_library)
    assert verifier.verify(got.body, got.headers) == EVENT
    with pytest.raises(WebhookVerificationError):
        verifier.verify(got.body.replace(b"1", b"2"), got.headers)
    with pytest.raises(WebhookVerificationError):
        verifier.verify(got.body, got.headers | {"webhook-id": "another"})
    with pytest.raises(WebhookVerificationError):
        verifier.verify(got.body, got.headers | {"webhook-timestamp": "1700000000"})


def test_the_plain_signature_is_of_the_body_as_it_was_sent(
    configured: Configured,
) -> None:
    """By the secret as it is written in its file."""
    with receiver() as one:
        _sent(configured(one, "s3cret"))

    (got,) = one.requests
    expected = hmac.new(b"s3cret", got.body, hashlib.sha256).hexdigest()
    assert got.headers["x-signature"] == f"sha256={expected}"
    assert got.headers["x-request-id"] == got.headers["webhook-id"]
    assert got.headers["content-type"] == "application/json"
    assert (got.method, got.path) == ("POST", "/hook")
    assert json.loads(got.body) == EVENT


def test_a_message_that_is_sent_again_is_the_same_with_a_new_time() -> None:
    """So that a receiver knows it, and refuses an old one."""
    first = signed(b"{}", "s3cret", message_id="m1", seconds=1_700_000_000)
    again = signed(b"{}", "s3cret", message_id="m1", seconds=1_700_000_005)

    assert first["webhook-id"] == again["webhook-id"]
    assert first["webhook-signature"] != again["webhook-signature"]
    assert first["X-Signature"] == again["X-Signature"]


def test_a_receiver_that_fails_gets_the_message_three_times(
    configured: Configured,
) -> None:
    """Under one id, and then no more."""
    with receiver([500, 503, 500, 200]) as one:
        assert _sent(configured(one, "s3cret")) == ["it answered 500"]

    assert len(_ids(one.requests)) == 1
    assert len(one.requests) == 3


def test_no_redirect_is_followed(configured: Configured) -> None:
    """Nor is one tried again."""
    with receiver() as other, receiver([302], other.url) as one:
        (reason,) = _sent(configured(one, "s3cret"))

    assert "redirects are not followed" in reason
    assert (len(one.requests), len(other.requests)) == (1, 0)


def test_a_secret_that_others_may_read_signs_nothing(
    configured: Configured, tmp_path: Path
) -> None:
    """Its file has mode 0600."""
    with receiver() as one:
        settings = configured(one, "s3cret")
        (tmp_path / "secret").chmod(0o644)
        (reason,) = _sent(settings)

    assert "may be read by others" in reason
    assert one.requests == []


def _ids(requests: list[Request]) -> set[str]:
    return {each.headers["webhook-id"] for each in requests}
