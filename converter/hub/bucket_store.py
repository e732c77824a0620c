"""The store that a bucket lies in, by obstore, with the settings and credentials that its own tools take.

obstore speaks both protocols, and asks by range and by ETag, which fsspec's interface has no word for. Of AWS it knows
the environment alone: what ``aws configure`` and ``aws sso login`` leave (profiles, roles, regions, endpoints) botocore
reads.
Credentials go to the endpoint alone, and into no message.
"""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from converter.errors import ConverterError, how_to_install
from converter.read.bucket_address import BucketAddress
from converter.version import __version__

_CLIENT: Final = {
    "connect_timeout": "5s",
    "read_timeout": "30s",
    "timeout": "1h",  # of one answer; bucket.py ends it sooner
    "user_agent": f"adapter-to-gguf/{__version__}",
}
_RETRIES: Final = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
_FRESH: Final = timedelta(minutes=5)  # botocore renews what ends within the next ten
_NO_CREDENTIALS: Final = (
    "no credentials for AWS; run `aws configure` or `aws sso login`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY; for a public bucket AWS_SKIP_SIGNATURE=true"
)
_NOT_RETRIEVED: Final = (
    "AWS's credentials can't be had from where the profile says; `aws sts get-caller-identity` tells more"
)


class Store(NamedTuple):
    """A bucket as obstore asks it, and where: ``endpoint`` is "" for the service's own."""

    objects: Any
    endpoint: str


def open_store(address: BucketAddress) -> Store:
    """The store of an address's bucket. Raises ConverterError without the extra, settings or credentials for it."""
    try:
        import botocore  # noqa: F401  of both, so that what is missing is said once
        import obstore  # noqa: F401
    except ImportError as error:
        raise ConverterError(
            f"{address}: needs {error.name}, which is not installed; {how_to_install('buckets')}"
        ) from error
    return _s3(address) if address.scheme == "s3://" else _gs(address)


def _s3(address: BucketAddress) -> Store:
    from botocore.configprovider import ConfiguredEndpointProvider
    from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError
    from botocore.session import Session
    from obstore.store import S3Store

    session = Session()
    try:
        scoped = session.get_scoped_config()
        of_config = ConfiguredEndpointProvider(session.full_config, scoped, "s3")
        region = os.environ.get("AWS_REGION") or session.get_config_variable("region") or "us-east-1"
        endpoint = of_config.provide() or ""
        signing = _signing(address, session)
    except (ClientError, CredentialRetrievalError) as error:  # whose text holds what others said, or a user's program
        raise ConverterError(f"{address}: {_NOT_RETRIEVED}") from error
    except BotoCoreError as error:
        raise ConverterError(f"{address}: AWS's settings can't be used: {error}") from error
    where = {"endpoint": endpoint} if endpoint else {}
    return _opened(
        address, endpoint, lambda options: S3Store(address.bucket, region=region, **where, **signing, **options)
    )


def _signing(address: BucketAddress, session: Any) -> Mapping[str, Any]:
    """How requests are signed: with what botocore finds, asked again before it ends."""
    if os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes"):
        return {"skip_signature": True}
    credentials = session.get_credentials()
    if credentials is None:
        raise ConverterError(f"{address}: {_NO_CREDENTIALS}")

    def current() -> Mapping[str, Any]:
        held = credentials.get_frozen_credentials()
        known = {"access_key_id": held.access_key, "secret_access_key": held.secret_key, "token": held.token}
        return {**known, "expires_at": datetime.now(UTC) + _FRESH}

    current()  # what can't be renewed is said here
    return {"credential_provider": current}


def _gs(address: BucketAddress) -> Store:
    from obstore.store import GCSStore

    return _opened(address, os.environ.get("GOOGLE_BASE_URL", ""), lambda options: GCSStore(address.bucket, **options))


def _opened(address: BucketAddress, endpoint: str, make: Callable[[Mapping[str, Any]], Any]) -> Store:
    """A store at an endpoint, without TLS only where that says http."""
    from obstore.exceptions import BaseError

    options = {"client_options": {**_CLIENT, "allow_http": endpoint.startswith("http://")}, "retry_config": _RETRIES}
    try:
        return Store(make(options), endpoint)
    except (BaseError, ValueError, OSError) as error:
        # obstore's text may hold a setting's value, and that may be a key.
        which = "AWS's" if address.scheme == "s3://" else "Google's"
        raise ConverterError(
            f"{address}: {which} settings can't be used ({type(error).__name__}): look at the endpoint, the region and "
            "the file of credentials"
        ) from error
