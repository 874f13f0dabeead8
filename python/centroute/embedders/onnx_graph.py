"""Writing ONNX graphs: nodes and weights are collected as plain data, then made into one model.

Only `GraphBuilder.model` needs the package ``onnx``, which the extra ``centroute[minilm]`` brings.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from centroute.errors import EmbedderError

if TYPE_CHECKING:
    import onnx

FLOAT = 1
"""``onnx.TensorProto.FLOAT``."""

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

# 17 is the first with LayerNormalization; nothing newer is needed, so older runtimes can read it.
OPSET = 17
IR_VERSION = 8


def require_onnx() -> None:
    """Refuse to go on without the package ``onnx``.

    Raises
    ------
    EmbedderError
        If it is not installed; names the extra that brings it.
    """
    if importlib.util.find_spec("onnx") is None:
        raise EmbedderError(
            "the package onnx is missing, which builds the graph: pip install 'centroute[minilm]'"
        )


@dataclass(frozen=True, slots=True)
class _Node:
    operator: str
    inputs: tuple[str, ...]
    output: str
    domain: str
    attributes: Mapping[str, Any]


class GraphBuilder:
    """Collects the nodes and initializers of one graph; names follow the order of creation."""

    def __init__(self) -> None:
        self._nodes: list[_Node] = []
        self._constants: dict[str, NDArray[Any]] = {}

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Add an initializer and return its name."""
        self._constants[name] = np.array(value, order="C")
        return name

    def node(
        self, operator: str, inputs: Sequence[str], *, output: str = "", domain: str = "", **attributes: Any
    ) -> str:
        """Add a node with one output and return that output's name."""
        output = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(_Node(operator, tuple(inputs), output, domain, attributes))
        return output

    def unit_rows(self, rows: str) -> str:
        """Divide float32 rows ``[n, dim]`` by their L2 norm into "embedding"; a zero row stays zero."""
        norm = self.node("ReduceL2", [rows], axes=[1], keepdims=1)
        # Far below any norm that a token can give, far above the smallest float32.
        floor = self.constant("norm_floor", np.float32(1e-12))
        return self.node("Div", [rows, self.node("Max", [norm, floor])], output="embedding")

    def model(self, name: str, *, dim: int, token_rows: Mapping[str, int] | None = None) -> onnx.ModelProto:
        """Return the checked model: two int64 inputs ``[n, seq]``, output "embedding" ``[n, dim]``.

        Parameters
        ----------
        name
            Name of the graph.
        dim
            Length of an embedding.
        token_rows
            Nodes that become outputs ``[n, seq, size]`` too, and their sizes.

        Raises
        ------
        EmbedderError
            If the package ``onnx`` is missing.
        """
        require_onnx()
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        inputs = [
            helper.make_tensor_value_info(input_name, TensorProto.INT64, ["n", "seq"])
            for input_name in ("input_ids", "attention_mask")
        ]
        outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", dim])]
        outputs += [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", "seq", size])
            for output, size in (token_rows or {}).items()
        ]
        nodes = [
            helper.make_node(
                node.operator,
                node.inputs,
                [node.output],
                name=node.output,
                domain=node.domain or None,
                **node.attributes,
            )
            for node in self._nodes
        ]
        constants = [numpy_helper.from_array(value, key) for key, value in self._constants.items()]
        graph = helper.make_graph(nodes, name, inputs, outputs, initializer=constants)
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain == MICROSOFT for node in self._nodes):
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="centroute"
        )
        onnx.checker.check_model(model, full_check=True)
        return model
