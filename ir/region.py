"""Patterns over ops: what a lowering matches. Knows wiring and convexity, no device, no cost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Block, Operation, SSAValue
from xdsl.irdl import IRDLOperation, VarOperandDef

Bound = SSAValue | tuple[SSAValue, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One op of a pattern: its name and, by operand field, the pattern value that it reads.

    A pattern value is the name of a boundary input, or `node` / `node.result` of an earlier node.
    A variadic field reads one value that stands for all of them, or so many as are listed.
    `flags` are properties that the op must have, where wiring alone does not tell two ops apart.
    """

    op: str
    operands: Mapping[str, str | tuple[str, ...]]
    flags: Mapping[str, bool] = field(default_factory=dict[str, bool])

    @property
    def reads(self) -> tuple[str, ...]:
        """Every pattern value that it reads, in order."""
        return tuple(v for found in self.operands.values() for v in _each(found))


def _moved(value: str, roles: Mapping[str, str]) -> str | None:
    """A node's value as that of the node whose role it takes; None for an input."""
    node, dot, result = value.partition(".")
    return roles[node] + dot + result if node in roles else None


def _each(found: str | tuple[str, ...]) -> tuple[str, ...]:
    return (found,) if isinstance(found, str) else found


@dataclass(frozen=True, slots=True)
class Region:
    """A connected wiring of ops in dependency order, and which of its values leave it."""

    nodes: Mapping[str, Node]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        inputs: list[str] = []
        for name, node in self.nodes.items():
            for value in node.reads:
                if value.split(".")[0] not in seen and value not in inputs:
                    inputs.append(value)
            seen.add(name)
        unknown = [o for o in self.outputs if o.split(".")[0] not in seen]
        if unknown:
            raise ValueError(f"region output {unknown[0]!r} is no node of the pattern")
        object.__setattr__(self, "inputs", tuple(inputs))

    def symmetry(self) -> tuple[str, str] | None:
        """Two nodes whose roles could be exchanged, None where every op has one role only.

        Such a pattern fits the same ops twice: which op then is which node, and so which weight is
        which operand, would be the order of the program's text.
        """
        return self._exchanged({}, {})

    def _exchanged(
        self, roles: Mapping[str, str], inputs: Mapping[str, str]
    ) -> tuple[str, str] | None:
        """Give the next node each role that its op and wiring allow, then those behind it."""
        if len(roles) == len(self.nodes):
            one_to_one = len(set(inputs.values())) == len(inputs)
            leaving = {_moved(o, roles) for o in self.outputs}
            if not one_to_one or leaving != set(self.outputs):
                return None
            return next(((n, role) for n, role in roles.items() if n != role), None)
        name = next(n for n in self.nodes if n not in roles)
        for role in self.nodes:
            if role in roles.values():
                continue
            followed = self._followed(name, role, roles, inputs)
            if followed is not None:
                found = self._exchanged({**roles, name: role}, followed)
                if found is not None:
                    return found
        return None

    def _followed(
        self, name: str, role: str, roles: Mapping[str, str], inputs: Mapping[str, str]
    ) -> dict[str, str] | None:
        """The inputs' roles when the node takes `role`; None where op or wiring forbid it."""
        node, other, followed = self.nodes[name], self.nodes[role], dict(inputs)
        if (node.op, node.operands.keys(), node.flags) != (
            other.op, other.operands.keys(), other.flags
        ):  # fmt: skip
            return None
        for field_name, found in node.operands.items():
            mine, others = _each(found), _each(other.operands[field_name])
            if len(mine) != len(others):
                return None
            for value, taken in zip(mine, others, strict=True):
                if (_moved(value, roles) or followed.setdefault(value, taken)) != taken:
                    return None
        return followed

    @staticmethod
    def single(op: type[IRDLOperation]) -> Region:
        """The region of one op: inputs named as its operand fields, outputs as its results."""
        definition = op.get_irdl_definition()
        operands = {name: name for name, _ in definition.operands}
        results = tuple(f"op.{name}" for name, _ in definition.results)
        return Region({"op": Node(op.name, operands)}, results)


@dataclass(frozen=True, slots=True)
class RegionMatch:
    """Ops of a block that fit a region, and its boundary values by pattern name."""

    region: Region
    ops: Mapping[str, IRDLOperation]
    values: Mapping[str, Bound]

    @property
    def members(self) -> frozenset[Operation]:
        """The ops that the region covers."""
        return frozenset(self.ops.values())

    def input_values(self) -> tuple[SSAValue, ...]:
        """Boundary inputs, flattened, without repeats."""
        flat: list[SSAValue] = []
        for name in self.region.inputs:
            bound = self.values[name]
            for value in bound if isinstance(bound, tuple) else (bound,):
                if value not in flat:
                    flat.append(value)
        return tuple(flat)

    def output_values(self) -> tuple[SSAValue, ...]:
        """Values that leave the region."""
        outs = [self.values[name] for name in self.region.outputs]
        return tuple(v for v in outs if isinstance(v, SSAValue))

    def digest(self) -> str:
        """sha256 of ops, wiring and attributes (shapes and dtypes are keyed beside it).

        Nodes and inputs count by position: what a pattern calls them does not matter.
        """
        inputs = {name: f"in{i}" for i, name in enumerate(self.region.inputs)}
        nodes = {name: f"op{i}" for i, name in enumerate(self.region.nodes)}

        def numbered(value: str | tuple[str, ...]) -> str:
            if isinstance(value, tuple):
                return " ".join(map(numbered, value))
            node, dot, result = value.partition(".")
            return inputs.get(value) or nodes[node] + dot + result

        lines: list[str] = []
        for name, op in self.ops.items():
            operands = self.region.nodes[name].operands
            wiring = sorted((field, numbered(value)) for field, value in operands.items())
            attributes = sorted((k, str(v)) for k, v in op.properties.items())
            lines.append(f"{op.name} {wiring} {attributes}")
        lines.append(str([numbered(o) for o in self.region.outputs]))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _operand_groups(op: IRDLOperation) -> Iterator[tuple[str, Bound]]:
    for name, definition in op.get_irdl_definition().operands:
        bound = getattr(op, name)
        yield name, (tuple(bound) if isinstance(definition, VarOperandDef) else bound)


def _is_wanted(op: IRDLOperation, want: Node) -> bool:
    """Whether it is the node's op, with the flags that the node asks for."""
    flags = want.flags.items()
    return op.name == want.op and all(_flag(op, name) is wanted for name, wanted in flags)


def _flag(op: IRDLOperation, name: str) -> bool | None:
    """A property that is true or false; None for any other."""
    found = op.properties.get(name)
    return bool(found.value.data) if isinstance(found, IntegerAttr) else None


def _results(op: IRDLOperation) -> dict[str, SSAValue]:
    return {name: getattr(op, name) for name, _ in op.get_irdl_definition().results}


def _bind(values: dict[str, Bound], name: str, bound: Bound) -> bool:
    return values.setdefault(name, bound) == bound


def _match_node(
    region: Region,
    node: str,
    op: Operation,
    ops: dict[str, IRDLOperation],
    values: dict[str, Bound],
) -> bool:
    """Match `op` as `node` and, backwards, every node that it reads."""
    if node in ops:
        return ops[node] is op
    want = region.nodes[node]
    if not isinstance(op, IRDLOperation) or not _is_wanted(op, want) or op in ops.values():
        return False
    ops[node] = op
    results = _results(op)
    if len(results) == 1 and not _bind(values, node, next(iter(results.values()))):
        return False
    if not all(_bind(values, f"{node}.{n}", v) for n, v in results.items()):
        return False
    for name, group in _operand_groups(op):
        found = want.operands.get(name)
        if found is None:
            return False
        if isinstance(found, str):
            pairs: list[tuple[str, Bound]] = [(found, group)]
        elif isinstance(group, tuple) and len(group) == len(found):
            pairs = list(zip(found, group, strict=True))
        else:
            return False
        if not all(_match_value(region, node, v, bound, ops, values) for v, bound in pairs):
            return False
    return True


def _match_value(
    region: Region,
    node: str,
    value: str,
    bound: Bound,
    ops: dict[str, IRDLOperation],
    values: dict[str, Bound],
) -> bool:
    """Match what `node` reads as a pattern value and, if a node gives that, the node."""
    if not _bind(values, value, bound):
        return False
    producer = value.split(".")[0]
    if producer not in region.nodes or producer == node:
        return True
    if not isinstance(bound, SSAValue) or not isinstance(bound.owner, Operation):
        return False
    return _match_node(region, producer, bound.owner, ops, values)


def _is_closed(match: RegionMatch) -> bool:
    """No inner value is used outside unless it leaves, and no boundary input comes from inside."""
    leaving = set(match.output_values())
    if any(v.owner in match.members for v in match.input_values()):
        return False
    return all(
        use.operation in match.members or result in leaving
        for op in match.ops.values()
        for result in op.results
        for use in result.uses
    )


def is_convex(members: frozenset[Operation], block: Block) -> bool:
    """No path leaves the members and comes back."""
    tainted: set[Operation] = set()
    for op in block.ops:
        producers = {v.owner for v in op.operands}
        outside = bool(producers & tainted)
        if op in members:
            if outside:
                return False
        elif outside or producers & members:
            tainted.add(op)
    return True


def _roots(region: Region) -> Sequence[str]:
    """Nodes that no other node reads: the places where a backward match must start."""
    read = {v.split(".")[0] for n in region.nodes.values() for v in n.reads}
    return [n for n in region.nodes if n not in read]


def find_matches(region: Region, block: Block) -> list[RegionMatch]:
    """Every convex, closed place of the region in a block, in program order of its last root."""
    roots = _roots(region)
    found: list[RegionMatch] = []

    def extend(i: int, ops: dict[str, IRDLOperation], values: dict[str, Bound]) -> None:
        if i == len(roots):
            ordered = {n: ops[n] for n in region.nodes}
            match = RegionMatch(region, ordered, values)
            fresh = all(match.members != m.members for m in found)
            if fresh and _is_closed(match) and is_convex(match.members, block):
                found.append(match)
            return
        for op in block.ops:
            if op.name == region.nodes[roots[i]].op:
                next_ops, next_values = dict(ops), dict(values)
                if _match_node(region, roots[i], op, next_ops, next_values):
                    extend(i + 1, next_ops, next_values)

    extend(0, {}, {})
    return found
