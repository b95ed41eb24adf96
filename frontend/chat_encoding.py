"""Says which chat encoding a checkpoint was trained on. Renders nothing, reads no token.

V3.2 and its Speciale ship without a chat template: theirs is the encoder that the server holds. A
checkpoint with a template (V3.2-Exp) was trained on what that template renders.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lostwax.frontend.config_fields import ConfigError
from lostwax.ir.contract.model import CHAT_V32

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG = "tokenizer_config.json"
MAX_CONFIG_BYTES = 1 << 22  # with a template inside and 818 added tokens it has 0.2 MB


def read_chat_encoding(folder: Path) -> str | None:
    """The encoding's id, None where the folder holds a template; ConfigError if it is damaged."""
    if (folder / TEMPLATE_FILE).exists():
        return None
    path = folder / TOKENIZER_CONFIG
    if not path.is_file():
        return CHAT_V32
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"{path} is larger than {MAX_CONFIG_BYTES} bytes: no tokenizer's settings"
        )
    try:
        raw: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{path} is not JSON ({e}); download it again") from e
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds no JSON object; download it again")
    return None if raw.get("chat_template") else CHAT_V32  # pyright: ignore[reportUnknownMemberType]
