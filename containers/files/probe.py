"""Asks the server in this container whether it is ready: `probe.py ready`, `probe.py startup`.

Status 0 for a 200. Sends the first key of the keys' file, where there is one: those paths want it.
Imports nothing of lostwax, so that it takes a moment.
"""

import sys
import urllib.error
import urllib.request
from pathlib import Path

KEYS = Path("/run/secrets/lostwax/keys")


def main() -> int:
    """The status."""
    request = urllib.request.Request(f"http://127.0.0.1:8000/{sys.argv[1]}")
    if KEYS.is_file():
        key = KEYS.read_text().split(maxsplit=1)[0]
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=4) as answer:
            return 0 if answer.status == 200 else 1
    except (OSError, urllib.error.HTTPError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
