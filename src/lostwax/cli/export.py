"""`lostwax export`: a graph of an artifact for other runtimes."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from lostwax.backends.runtime.say import result, result_json
from lostwax.cli.checked_model import require_checkpoint
from lostwax.cli.named_paths import Artifact, Checkpoint, OutFile
from lostwax.cli.option_types import Flag, Json, OptionRefused
from lostwax.ir.contract.program import HEADS, Segment


class NoFormat(ValueError):
    """No format was named."""


def export(
    artifact: Artifact,
    /,
    *,
    out: Annotated[OutFile, Parameter(name=["-o", "--out"])],
    onnx: Flag = False,
    segment: Segment = "extend",
    all_: Annotated[bool, Parameter(name="--all", negative="--chosen")] = False,
    checkpoint: Checkpoint | None = None,
    json_: Json = False,
) -> None:
    """Write a graph of an artifact, with the checkpoint's weights, as an ONNX model.

    Plain onnxruntime runs it: each op is a function of the domain ai.lostwax with a body in ONNX
    operators. Caches are inputs past.PLANE.LAYER and outputs present.PLANE.LAYER.

    Parameters
    ----------
    artifact
        The artifact folder.
    out
        The model's file; its weights go to FILE.data beside it.
    onnx
        Write ONNX, which is the only format so far.
    segment
        A body, which gives hidden rows: extend (rows of unequal requests), decode (one row a
        request), draft (the MTP layer, in an artifact that drafts). Or a head, which reads them:
        pick, sample (top_k, top_p, min_p too), score (log-probabilities of targets and the
        likeliest ids, too).
    all_
        The graph for requests of at most index_topk tokens, where every position is selected.
        --chosen, the default, serves every length.
    checkpoint
        Where the artifact's checkpoint lies, if not where it was when compiled.
    json_
        Print the result as JSON on standard output.
    """
    if not onnx:
        raise NoFormat("say what to write: --onnx is the format that lostwax exports")
    from lostwax.backends.exported_graph import graph_file
    from lostwax.backends.plan.variants import Variant
    from lostwax.backends.runtime.artifact_reader import ArtifactReader

    if all_ and segment in HEADS:
        raise OptionRefused(f"--all: the head {segment} selects no positions; leave it out")
    variant = Variant(segment, every=all_)
    reader = ArtifactReader(artifact)
    graph_file(reader.manifest, variant.name)  # refused before torch is imported
    require_checkpoint(reader, checkpoint)
    from lostwax.backends.export_onnx import export_artifact

    model = export_artifact(artifact, out, variant, checkpoint=checkpoint)
    weight_bytes = sum(w.num_bytes for w in model.weights)
    report = {
        "model": str(out),
        "graph": variant.name,
        "functions": len(model.proto.functions),
        "nodes": len(model.proto.graph.node),
        "weight_bytes": weight_bytes,
    }
    if json_:
        result_json(report)
        return
    result(
        f"{out}: {variant.name}, {report['nodes']} calls of {report['functions']} functions,"
        f" weights {weight_bytes / 2**20:.1f} MiB in {out.name}.data"
    )
