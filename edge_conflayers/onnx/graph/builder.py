"""Builds ONNX graphs: nodes, constants, weights, and branches of an ``If``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NewType

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edge_conflayers.onnx.external_data import DataFile, Region

Value = NewType("Value", str)
"""The name of what a node gives, a constant or an input."""

CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


class Graph:
    """A graph, or a branch of an ``If`` inside one, which sees the values of the graph around it.

    Args:
        data: the file of weights.
        outer: the graph around a branch.

    Attributes:
        data: as above.
        root: the outermost graph.
    """

    def __init__(self, data: DataFile, outer: Graph | None = None) -> None:
        self.data = data
        self.root: Graph = self if outer is None else outer.root
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._scope: str = "" if outer is None else outer._scope
        if outer is None:
            self._numbers = itertools.count()
            self._constants: dict[tuple[str, bytes, tuple[int, ...]], Value] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names within begin with this one."""
        before, self._scope = self._scope, f"{self._scope}{name}/"
        try:
            yield
        finally:
            self._scope = before

    def _name(self, what: str) -> str:
        return f"{self._scope}{what}_{next(self.root._numbers)}"

    def nodes(
        self,
        operator: str,
        inputs: Sequence[Value | None],
        outputs: int | Sequence[str],
        domain: str = "",
        **attributes: Any,
    ) -> tuple[Value, ...]:
        """Adds a node.

        Args:
            inputs: None for one that is left out.
            outputs: how many, or their names.
            attributes: as ``onnx.helper`` takes them.
        """
        name = self._name(operator)
        if isinstance(outputs, int):
            names = [name] if outputs == 1 else [f"{name}:{i}" for i in range(outputs)]
        else:
            names = list(outputs)
        self._nodes.append(
            helper.make_node(
                operator, [i or "" for i in inputs], names, name, domain=domain, **attributes
            )
        )
        return tuple(map(Value, names))

    def node(
        self, operator: str, *inputs: Value | None, domain: str = "", **attributes: Any
    ) -> Value:
        """Adds a node with one output."""
        return self.nodes(operator, inputs, 1, domain, **attributes)[0]

    def cast(self, value: Value, to: int) -> Value:
        return self.node("Cast", value, to=to)

    def reshape(self, value: Value, *shape: int) -> Value:
        """A value in another shape: 0 keeps a dimension, -1 takes what is left."""
        return self.node("Reshape", value, self.axes(*shape))

    def axes(self, *axes: int) -> Value:
        """A constant list of axes or sizes, int64."""
        return self.constant(np.array(axes, dtype=np.int64))

    def constant(self, array: npt.NDArray[Any]) -> Value:
        """A small constant, kept in the graph's own file."""
        root = self.root
        array = np.ascontiguousarray(array) if array.ndim else array
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in root._constants:
            name = f"constant_{next(root._numbers)}"
            root._weights.append(onnx.numpy_helper.from_array(array, name))
            root._constants[key] = Value(name)
        return root._constants[key]

    def number(self, number: int | float, like: int) -> Value:
        """A scalar constant of an ONNX data type."""
        return self.constant(np.array(number, dtype=helper.tensor_dtype_to_np_dtype(like)))

    def weight(self, name: str, region: Region, data_type: int, shape: Sequence[int]) -> Value:
        """A tensor of the weights' file, defined in this graph."""
        self._weights.append(self.data.tensor(region, name, data_type, shape))
        return Value(name)

    def input(
        self, name: str, data_type: int, shape: Sequence[int | str], default: Any = None
    ) -> Value:
        """An input; with a default, one that may be left out."""
        self._inputs.append(helper.make_tensor_value_info(name, data_type, shape))
        if default is not None:
            self._weights.append(onnx.numpy_helper.from_array(default, name))
        return Value(name)

    def output(
        self, value: Value, data_type: int, shape: Sequence[int | str] | None = None
    ) -> None:
        self._outputs.append(helper.make_tensor_value_info(value, data_type, shape))

    def branch(self) -> Graph:
        """A branch of an ``If`` in this graph."""
        return Graph(self.data, self)

    def either(
        self,
        condition: Value,
        then: Graph,
        otherwise: Graph,
        outputs: int | Sequence[str],
    ) -> tuple[Value, ...]:
        """Adds an ``If`` of two branches whose outputs are set."""
        return self.nodes(
            "If",
            [condition],
            outputs,
            then_branch=then.proto("then"),
            else_branch=otherwise.proto("else"),
        )

    def proto(self, name: str) -> onnx.GraphProto:
        """What was built."""
        return helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, initializer=self._weights
        )
