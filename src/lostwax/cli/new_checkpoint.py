"""`lostwax new-checkpoint`: a random checkpoint in the official format."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from lostwax.cli.named_paths import ConfigFile, EmptyFolder
from lostwax.cli.option_types import Seed


def new_checkpoint(
    *,
    config: ConfigFile,
    out: Annotated[EmptyFolder, Parameter(name=["-o", "--out"])],
    seed: Seed = 0,
    format: Literal["fp8", "bf16", "fp32"] = "bf16",
) -> None:
    """Write a random checkpoint in the official DeepSeek-V3.2 format.

    Parameters
    ----------
    config
        A config.json of the architecture, such as examples/tiny.json.
    out
        The checkpoint folder; it must not exist or be empty.
    seed
        The same seed gives the same bytes.
    format
        fp8 stores projections as e4m3 with 128x128 block scales, as the published weights are.
    """
    from lostwax.frontend.new_checkpoint import new_checkpoint as write

    write(config, out, seed=seed, format=format)
    print(out)
