"""Merges repeated evaluations of a schedule while a `tf.function` is traced, so that one step evaluates it once.

Why: in Keras 3, an optimizer with weight decay reads the rate N + 1 times a step for N variables. TensorFlow does not
merge these reads, because the optimizer's `iterations` could change between two of them.

The rule: the first evaluation is cached for its graph. A later one with the same key gets the cached tensor, unless an
operation that was added in between may write the variable. This is safe because a `tf.function` runs all operations on
a variable in the order in which they were added. An operation that is not known to be safe drops the cached result, so
a doubt costs one more evaluation and never a wrong rate.

An op of lrops depends on its step only. A schedule inside a `LinearWarmup` may depend on more, so it is cached only if
the operations that it added are pure: none is stateful, takes a resource, a variant or a reference, or has a control
input. Reading the step is allowed, and so are calls, branches and loops whose functions are pure. Python code in such a
schedule runs once for all merged evaluations. So a schedule whose Python state changes between two reads of one trace,
such as a counter of its calls, does not belong in a `LinearWarmup`.
"""

import itertools
from typing import Any, NamedTuple

import tensorflow as tf


class _Result(NamedTuple):
    """A cached evaluation. It keeps the handle and the context alive, because their ids are part of the cache's key."""

    value: Any
    dtype: Any  # of the variable
    handle: Any
    context: Any


class _Evaluations:
    """The valid cached results of one function graph."""

    def __init__(self):
        self._seen = 0  # how many operations of the graph have been looked at
        self._results = {}

    def look_at_new_operations(self, graph):
        """Drops each result whose variable the operations added since the last look may write."""
        operations = graph.get_operations()
        for operation in operations[self._seen :] if self._results else ():
            if _may_write(operation):
                self._results = {
                    key: result
                    for key, result in self._results.items()
                    if _writes_another_dtype(operation, result.dtype)
                    or _writes_another_variable(operation, result.handle, graph)
                }
        self._seen = len(operations)

    def get(self, handle, context, key):
        result = self._results.get((id(handle), id(context), key))
        return result and result.value

    def put(self, value, dtype, handle, context, key):
        self._results[id(handle), id(context), key] = _Result(value, dtype, handle, context)

    def put_if_pure(self, value, dtype, handle, context, key, graph, first):
        """Caches `value` if all operations of the graph from number `first` on are pure."""
        operations = graph.get_operations()
        added = operations[first:]
        handles = {id(inner) for outer, inner in graph.captures if outer is handle} | {id(handle)}
        if all(_is_pure(operation, handles, graph) and not operation.control_inputs for operation in added):
            self.put(value, dtype, handle, context, key)
            self._seen = len(operations)  # `_may_write` would take a branch that reads the step for a write


def evaluated_once(evaluate, variable, key, only_if_pure=False):
    """`evaluate()`, or the cached result of an earlier call that must be equal.

    Args:
        evaluate: A function that adds operations to the graph and returns a tensor. The tensor may depend on the
            variable's value and on nothing else that can change.
        variable: A `tf.Variable`, or a tensor that was just read from one. With any other tensor nothing is merged.
        key: A hashable name of what is evaluated. Calls with equal keys ask for the same number.
        only_if_pure: `evaluate` may do anything. Its result is cached only if the operations that it added are pure.

    Returns:
        The tensor.
    """
    graph = tf.compat.v1.get_default_graph()
    handle = _handle(variable, graph)
    # Three cases cannot be merged. A graph for a session does not run operations in the order in which they were added.
    # Under the user's `tf.control_dependencies`, an evaluation waits for operations that exist already, such as a
    # `tf.py_function` that writes the variable. A tensor from a branch or a loop cannot be used outside of it; XLA's
    # context is the only one that is neither.
    ordered = graph.building_function and not graph._current_control_dependencies()
    context = graph._get_control_flow_context()
    if handle is None or not ordered or (context and not context.IsXLAContext()):
        return evaluate()
    evaluations = getattr(graph, "_lrops_evaluations", None)
    if evaluations is None:
        # Kept on the graph: a global cache would keep the graph alive.
        evaluations = graph._lrops_evaluations = _Evaluations()
    evaluations.look_at_new_operations(graph)
    result = evaluations.get(handle, context, key)
    if result is not None:
        return result
    if not only_if_pure:
        result = evaluate()
        evaluations.put(result, variable.dtype, handle, context, key)
        return result
    first = len(graph.get_operations())
    # Inside, start with an empty cache: a cached tensor would hide which variable the new operations depend on.
    graph._lrops_evaluations = _Evaluations()
    try:
        result = evaluate()
    finally:
        graph._lrops_evaluations = evaluations
    evaluations.put_if_pure(result, variable.dtype, handle, context, key, graph, first)
    return result


def _handle(variable, graph):
    """The handle of a variable; for a tensor, of the variable that it was read from, if no write can have followed."""
    try:
        return variable.handle  # under a distribution strategy, this replica's handle
    except (AttributeError, ValueError):  # a tensor; or a replicated variable, outside of the replicas
        read = None if isinstance(variable, tf.Variable) else getattr(variable, "op", None)
    if (
        read is None
        or read.type != "ReadVariableOp"
        or read.graph is not graph
        or read.control_inputs
        or read._get_control_flow_context() is not graph._get_control_flow_context()
    ):
        return None
    since = itertools.takewhile(lambda operation: operation is not read, reversed(graph.get_operations()))
    written = any(_may_write(one) and not _writes_another_dtype(one, variable.dtype) for one in since)
    return None if written else read.inputs[0]


# TensorFlow's name "stateless" proves nothing: a StatelessCase may draw random numbers.
_CALLS = {"PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "Case", "StatelessCase"}
_CALLS |= {"While", "StatelessWhile"}


def _is_pure(operation, handles, graph):
    """Whether an operation depends only on its inputs and on the variable.

    Args:
        operation: An operation of the graph.
        handles: The ids of the tensors that are known to be handles of the variable.
        graph: The graph, which holds the functions that the operation calls.
    """
    state = [tensor for tensor in operation.inputs if _holds_state(tensor)]
    if any(id(tensor) not in handles for tensor in state):
        return False
    functions = _functions(operation)
    if functions or operation.type in _CALLS:
        return bool(functions and operation.type in _CALLS) and all(
            body and all(_is_pure(one, inside, body) for one in body.get_operations())
            for body, inside in (_body(name, operation, handles, graph) for name in functions)
        )
    return operation.type == "ReadVariableOp" or not (state or operation.op_def.is_stateful)


def _functions(operation):
    """The names of the functions that a call, a branch or a loop runs."""
    attributes = operation.node_def.attr.values()
    found = [[one.func] if one.HasField("func") else one.list.func for one in attributes]
    return [function.name for functions in found for function in functions]


def _body(name, operation, handles, graph):
    """The graph of a called function, or None if it is unknown, and the ids of the variable's handles in it."""
    body = getattr(graph._functions.get(name), "graph", None)
    inputs = body.inputs if body else []
    given = operation.inputs[len(operation.inputs) - len(inputs) :]  # skips the condition of a branch
    return body, {id(inner) for outer, inner in zip(given, inputs, strict=True) if id(outer) in handles}


def _holds_state(tensor):
    return tensor.dtype in (tf.resource, tf.variant) or tensor.dtype.base_dtype != tensor.dtype


def _may_write(operation):
    """Whether an operation can write a variable."""
    # A variant may be a dataset, and a dataset's functions may hold variables.
    return operation.type != "ReadVariableOp" and any(
        tensor.dtype in (tf.resource, tf.variant) for tensor in operation.inputs
    )


def _names_what_it_writes(operation):
    """Whether an operation can write only the variables among its inputs."""
    return operation.type.startswith(("Assign", "Resource"))


def _writes_another_dtype(operation, dtype):
    """Whether an operation writes variables of another dtype only.

    The dtype is an attribute: `dtype` of AssignVariableOp and its kin, `T` of ResourceApplyAdam and its kin. In other
    operations these attributes may mean something else, such as the dtype of the numbers that StatefulUniform draws.
    """
    if _names_what_it_writes(operation):
        for name in ("dtype", "T"):
            if any(attribute.name == name for attribute in operation.op_def.attr):
                return operation.get_attr(name) != dtype
    return False


def _writes_another_variable(operation, handle, graph):
    """Whether an operation is known to write other variables than that of `handle` only."""
    if not _names_what_it_writes(operation) or not isinstance(handle, tf.__internal__.EagerTensor):
        return False
    # A captured variable is an input of the graph from its first use on, and stays the same in every call. A variable
    # that is an argument of the function may be any variable in the next call.
    inputs = set(map(id, graph.inputs))
    captured = {id(inner): outer for outer, inner in graph.captures if id(inner) in inputs}
    written = [captured.get(id(tensor)) for tensor in operation.inputs if tensor.dtype == tf.resource]
    if not written or not any(outer is handle for outer in captured.values()):
        return False
    # Two handles of the same variable have the same text, which names the device and the variable.
    return all(isinstance(outer, tf.__internal__.EagerTensor) and str(outer) != str(handle) for outer in written)
