"""What a bucket that refuses, or can't be reached, is told as: one line, with what to do.

obstore's own texts hold whole answers, and S3's answer to a wrong key holds the key: of those only the status and the
``<Code>`` are taken (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and alike Google's
https://docs.cloud.google.com/storage/docs/xml-api/reference-status).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from converter.errors import ConverterError
from converter.read.bucket_address import BucketAddress

_REGION: Final = re.compile(r"<Region>([a-z0-9-]{1,40})</Region>")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")
_RENEW: Final = "run `aws sso login`, or what else gives yours, and then this command again"
_PUBLIC: Final = "for a public bucket GOOGLE_SKIP_SIGNATURE=true"
_SET_REGION: Final = "name it in AWS_REGION"
_SERVICES: Final = {"s3://": "AWS", "gs://": "Google Cloud"}
_FOR_NOW: Final = ("429", "500", "502", "503", "504")
_LOGINS: Final = {
    "s3://": "`aws sts get-caller-identity` says who you are; AWS_PROFILE or AWS_ACCESS_KEY_ID name another",
    "gs://": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
}
_RIGHTS: Final = {
    "s3://": "s3:ListBucket and s3:GetObject are needed",
    "gs://": "storage.objects.list and storage.objects.get are needed",
}
_BY_CODE: Final = {
    "NoSuchBucket": "no such bucket",
    "InvalidBucketName": "no such bucket",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "InvalidObjectState": "is archived (Glacier); restore it first",
    "PreconditionFailed": "was replaced while it was read; run it again",
}
_ABOUT_REGION: Final = ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect")
_ABOUT_KEYS: Final = (
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
)


@contextmanager
def in_plain_words(where: BucketAddress, endpoint: str, seconds: float) -> Iterator[None]:
    """Make a ConverterError, status 2, of what keeps an answer from coming."""
    from obstore.exceptions import BaseError, InvalidPathError

    try:
        yield
    except InvalidPathError as error:
        raise ConverterError(f"{where}: a key there has an empty part or .., and could be no file's name") from error
    except (BaseError, FileNotFoundError) as error:
        raise ConverterError(f"{where}: {_said(str(error), where, endpoint)}") from error
    except TimeoutError as error:
        raise ConverterError(f"{where}: the bucket took longer than {seconds:.0f} s; try again later") from error


def _said(text: str, where: BucketAddress, endpoint: str) -> str:
    """The first of the causes that an error's text tells."""
    told = text.partition("Debug source")[0]
    code, status = _first(_CODE, text), _first(_STATUS, told)
    how = f" ({', '.join(filter(None, (code, status and f'status {status}')))})" if code or status else ""
    region = _first(_REGION, text)
    of = f", {region}" if region else ""
    server, login = endpoint or _SERVICES[where.scheme], _LOGINS[where.scheme]
    causes = (
        (_is_about_a_token(told), f"no credentials that Google Cloud takes; {login}; {_PUBLIC}"),
        ("External AWS credential provider" in told, f"the credentials have ended, and no new ones come; {_RENEW}"),
        (code in _ABOUT_KEYS or status == "401", f"the credentials are not taken{how}; {login}"),
        (code in _BY_CODE, _BY_CODE.get(code or "", "")),
        (code in _ABOUT_REGION or "without LOCATION" in told, f"the bucket lies in another region{of}; {_SET_REGION}"),
        (status == "412", _BY_CODE["PreconditionFailed"]),
        (status == "403", f"may not be read with these credentials{how}; {_RIGHTS[where.scheme]}; {login}"),
        (status == "404", "is not there"),
        (status in _FOR_NOW, f"{server} has a fault or too much to do{how}; try again later"),
        ("HTTP error" in told, f"{server} can't be reached, or the connection broke; run it again"),
    )
    return next((said for holds, said in causes if holds), f"{server} gives an answer that isn't understood{how}")


def _is_about_a_token(told: str) -> bool:
    """Whether none was given, be it for lack of credentials: for AWS botocore has found them before."""
    return "token request" in told.lower()


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[1] if found else None
