"""Who may ask: bearer keys, of which a file holds the hashes.

    python -m raylib.serving.access keys.txt NAME     # adds a key and prints it, the only time it is seen

A line of the file is a name and the key's SHA-256. Keys are 256 random bits, so a plain hash cannot be reversed.
"""

import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

from raylib.errors import ConfigError
from raylib.serving.refusals import RefusalError, answer_refusal

App = Callable[..., Awaitable[None]]
OPEN_PATHS = ("/", "/healthz", "/readyz")  # the page holds nothing itself; probes carry no key
LINE = re.compile(r"(?P<name>\S+)\s+(?P<digest>[0-9a-f]{64})")


def load_keys(path: str | None) -> tuple[bytes, ...]:
    """The hashes of a key file, none without a path; raises ConfigError for a file that would let nobody in."""
    if path is None:
        return ()
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"keys_file: {path}: {error.strerror}") from None
    wanted = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    wrong = [number for number, line in enumerate(wanted, 1) if not LINE.fullmatch(line)]
    if wrong or not wanted:
        # the lines themselves are not shown: one may hold a key by mistake
        where = f"entry {wrong[0]} is not a name and a SHA-256" if wrong else "it holds no key"
        raise ConfigError(f"keys_file: {path}: {where}; add keys with `python -m raylib.serving.access {path} NAME`")
    return tuple(bytes.fromhex(line.split()[1]) for line in wanted)


def add_key(path: Path, name: str) -> str:
    """Add a new key to a file, readable by its owner only, and return it."""
    if not re.fullmatch(r"\S+", name):
        raise ConfigError(f"name {name!r}: one word")
    key = secrets.token_urlsafe(32)
    path.touch(mode=0o600)
    with path.open("a") as file:
        file.write(f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n")
    return key


def may_enter(authorization: str, digests: Iterable[bytes]) -> bool:
    """Whether an Authorization header carries one of the keys; takes the same time wherever a key differs."""
    scheme, _, key = authorization.partition(" ")
    digest = hashlib.sha256(key.strip().encode()).digest()
    is_known = False
    for known in digests:  # all of them, found or not
        is_known |= hmac.compare_digest(digest, known)
    return is_known and scheme.casefold() == "bearer"


class Access:
    """ASGI middleware that refuses requests without a key; no hashes: everybody may ask."""

    def __init__(self, app: App, digests: Callable[[], tuple[bytes, ...]]) -> None:
        self._app, self._digests = app, digests

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Refuse with 401 or pass on."""
        digests = self._digests()
        if scope["type"] == "http" and digests and scope["path"] not in OPEN_PATHS:
            authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            if not may_enter(authorization, digests):
                challenge = {"WWW-Authenticate": "Bearer"}
                refusal = RefusalError(401, "unauthorized", "send a valid key as Authorization: Bearer KEY", challenge)
                await answer_refusal(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m raylib.serving.access KEYS_FILE NAME")
    print(add_key(Path(sys.argv[1]), sys.argv[2]))
