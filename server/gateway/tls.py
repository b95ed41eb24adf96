"""The certificate that the server shows, and its key. Knows no connection."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


class BadCertificate(ValueError):
    """Files that cannot be used; the message names them."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. Without `keyfile` the key stands in `certfile`, beside the certificates."""

    certfile: Path
    keyfile: Path | None = None

    def require_usable(self) -> None:
        """BadCertificate where these files do not do, such as a key with a password."""
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # Of a key with a password OpenSSL would ask the terminal.
            context.load_cert_chain(self.certfile, self.keyfile, password=lambda: "")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            where = self.certfile if self.keyfile is None else f"{self.certfile}, {self.keyfile}"
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise BadCertificate(
                f"{where}: no certificate with its key, without a password, as PEM ({reason})"
            ) from error
