"""Says which chat encoding a checkpoint was trained on. Renders nothing, reads no token.

V3.2 and its Speciale ship without a chat template: theirs is the encoder that the server holds.
V3.1 and V3.2-Exp bring templates, of which the server knows the rules; they are told by what they
hold and never run. Any other template is an encoding that nobody here knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from lostwax.frontend.json_file import read_json_object
from lostwax.ir.contract.model import CHAT_SPECIALE, CHAT_V31, CHAT_V32, CHAT_V32_EXP

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG = "tokenizer_config.json"
MAX_CONFIG_BYTES = 1 << 22  # with a template inside and 818 added tokens it has 0.2 MB
MAX_TEMPLATE_BYTES = 1 << 16  # the official ones have 4 kB

_V31_PARTS = (
    "{{bos_token}}{{ns.system_prompt}}",
    "'<｜User｜>'+message['content']",  # noqa: RUF001
    "'<｜Assistant｜></think>'",  # noqa: RUF001
    "'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'+tool['function']['name']+'<｜tool▁sep｜>'",  # noqa: RUF001
    "'<｜tool▁calls▁end｜><｜end▁of▁sentence｜>'",  # noqa: RUF001
    "'<｜tool▁output▁begin｜>'+message['content']+'<｜tool▁output▁end｜>'",  # noqa: RUF001
    "content.split('</think>',1)[1]",
)
"""What no template of another model's holds all of, white space aside: V3 and R1 have code fences
around arguments and other marks around results."""
_EXP_PART = "ns.is_only_sys"
"""V3.2-Exp's opens the model's turn behind a system message, too."""
_SPECIALE = "speciale"


def read_chat_encoding(folder: Path) -> str | None:
    """The encoding's id, None for a template that is not known; ConfigError if it is damaged.

    Nothing in V3.2-Speciale's files tells it from V3.2 but its name, so it is known by the folder
    that it lies in (or one of the two above it: the hub's cache has the name there).
    """
    template = _read_template(folder)
    if template is None:
        around = folder.absolute().parts[-3:]
        is_speciale = any(_SPECIALE in part.lower() for part in around)
        return CHAT_SPECIALE if is_speciale else CHAT_V32
    written = "".join(template.split())
    if not all(part in written for part in _V31_PARTS):
        return None
    return CHAT_V32_EXP if _EXP_PART in written else CHAT_V31


def _read_template(folder: Path) -> str | None:
    """The text of the template, "" for one that cannot be known, None where there is none."""
    path = folder / TEMPLATE_FILE
    if path.exists():
        with path.open("rb") as file:
            found = file.read(MAX_TEMPLATE_BYTES + 1)
        return found.decode(errors="replace") if len(found) <= MAX_TEMPLATE_BYTES else ""
    config = folder / TOKENIZER_CONFIG
    if not config.is_file():
        return None
    said = read_json_object(config, MAX_CONFIG_BYTES).get("chat_template")
    if not said:
        return None
    return _default(said)


def _default(said: Any) -> str:
    """A template, or the default one of several by name."""
    if isinstance(said, list):
        for each in cast("list[Any]", said):
            if isinstance(each, dict) and cast("dict[str, Any]", each).get("name") == "default":
                said = cast("dict[str, Any]", each).get("template")
    return said if isinstance(said, str) else ""
