"""The boto3 client of a store: addresses, limits and retries from the settings."""

from __future__ import annotations

from typing import Any

from opskit.config import StoreSettings

_CONNECTIONS_MAX = 8
_FALLBACK_REGION = "us-east-1"


def make_client(settings: StoreSettings) -> Any:
    """Return a client; boto3 finds the credentials, and may ask an instance's role.

    Raises:
        botocore.exceptions.BotoCoreError: the profile is missing or unreadable.
    """
    import boto3
    from botocore.config import Config

    session = boto3.session.Session(
        profile_name=settings.profile or None, region_name=settings.region or None
    )
    seconds = settings.timeout.total_seconds()
    proxies = {"http": settings.proxy, "https": settings.proxy}
    return session.client(
        "s3",
        region_name=session.region_name or _FALLBACK_REGION,
        endpoint_url=settings.endpoint_url or None,
        verify=str(settings.ca_file) if settings.ca_file else None,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": settings.addressing},
            retries={"mode": "standard", "total_max_attempts": settings.attempts},
            connect_timeout=seconds,
            read_timeout=seconds,
            tcp_keepalive=True,
            max_pool_connections=_CONNECTIONS_MAX,
            proxies=proxies if settings.proxy else None,
            request_checksum_calculation=settings.checksums,
            # Asked for where it makes sense: some servers send the checksum of the
            # whole object with a part of it.
            response_checksum_validation="when_required",
        ),
    )
