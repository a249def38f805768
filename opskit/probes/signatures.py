"""Signatures: how webhooks are signed, by the scheme in the settings."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from opskit.config.watch import read_key
from opskit.config.webhooks import SignatureSettings
from opskit.errors import ConfigurationError
from opskit.log import hide


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """Signs bodies, and checks the signatures of bodies."""

    settings: SignatureSettings
    secret: bytes = field(repr=False)

    def headers(self, body: bytes, *, id: str, time: int) -> dict[str, str]:
        """Return the headers of a delivery."""
        form = self.settings.form.replace("{timestamp}", str(time))
        signature = self._signature(body, id=id, time=str(time))
        headers = {
            self.settings.header: form.replace("{signature}", signature),
            self.settings.id_header: id,
            self.settings.timestamp_header: str(time),
        }
        return {name: value for name, value in headers.items() if name}

    def fault(self, headers: Mapping[str, str], body: bytes, *, now: float) -> str:
        """Return what is wrong with a delivery that came now; empty if nothing."""
        form = re.escape(self.settings.form)
        form = form.replace(r"\{signature\}", r"(?P<signature>[\w+/=-]+)")
        form = form.replace(r"\{timestamp\}", r"(?P<timestamp>\d{1,15})")
        value = headers.get(self.settings.header, "")
        match = re.fullmatch(form, value, re.ASCII)
        if match is None:
            return "a signature of another form" if value else "no signature"
        id = headers.get(self.settings.id_header, "")
        if self.settings.id_header and not id:
            return f"no {self.settings.id_header}"
        time = match.groupdict().get("timestamp") or headers.get(
            self.settings.timestamp_header, ""
        )
        if self.settings.timestamp_header or "timestamp" in match.groupdict():
            if not re.fullmatch(r"\d{1,15}", time, re.ASCII):
                return "no timestamp in whole seconds"
            if abs(now - int(time)) > self.settings.tolerance.total_seconds():
                return f"a timestamp {abs(now - int(time)):.0f} s from now"
        signature = self._signature(body, id=id, time=time)
        if not hmac.compare_digest(signature, match["signature"]):
            return "a signature that is not that of the body"
        return ""

    def _signature(self, body: bytes, *, id: str, time: str) -> str:
        signed = self.settings.signed.replace("{id}", id).replace("{timestamp}", time)
        before, _, after = signed.partition("{body}")
        digest = hmac.new(
            self.secret,
            before.encode() + body + after.encode(),
            getattr(hashlib, self.settings.algorithm),
        ).digest()
        if self.settings.encoding == "hex":
            return digest.hex()
        return base64.b64encode(digest).decode()


def scheme(key: str, settings: SignatureSettings) -> Scheme:
    """Return the scheme with its secret; `key` is the section that names it.

    Raises:
        ConfigurationError: there is no secret, or it cannot be read.
    """
    if settings.secret_file is None:
        raise ConfigurationError(
            f"{key}.secret_file is missing",
            hint="Name a file of mode 0600 that holds the secret of the signatures.",
        )
    secret = read_key(f"{key}.secret_file", settings.secret_file)
    hide(secret)
    return Scheme(settings=settings, secret=secret.encode())
