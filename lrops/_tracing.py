"""One evaluation a step: while a `tf.function` is traced, repeated evaluations of the same variable are merged.

An optimizer with weight decay reads the rate once for each variable, and TensorFlow's graph passes cannot merge the
reads of `iterations`: each of them might see another value. While tracing, the operations between two reads are known,
and `tf.function` runs everything that touches a variable in the order in which it was made. So if no operation made
since an evaluation can write the variable, another evaluation would give the same number. Any operation not known
to be safe discards the cached results; the worst case is the graph that there would be without this file.

A compiled op depends on the step alone. A schedule that somebody else wrote may depend on more, so its result is cached
only if the operations which its evaluation added to the graph are pure: none of them is stateful (as variables, random
numbers, printing and assertions are), takes a resource, a variant or a reference, or waits for another operation. Two
things are allowed: a read of the step, and a call, a branch or a loop whose functions are pure. What such a schedule
does in Python happens once while its results are merged, as with anything that `tf.function` traces; so a schedule
whose Python state changes between two reads of one trace, as a counter of its calls does, must not be merged.
"""

import itertools
from typing import Any, NamedTuple

import tensorflow as tf


class _Result(NamedTuple):
    """What an evaluation gave. The handle and the context are kept, so that no later object gets the id of either."""

    value: Any
    dtype: Any  # of the variable
    handle: Any
    context: Any


class _Evaluations:
    """The results of one function graph that are still valid."""

    def __init__(self):
        self._seen = 0  # operations of the graph
        self._results = {}

    def look_at_new_operations(self, graph):
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
        """`put`, if the operations of the graph from number `first` on are pure."""
        operations = graph.get_operations()
        added = operations[first:]
        handles = {id(inner) for outer, inner in graph.captures if outer is handle} | {id(handle)}
        if all(_is_pure(operation, handles, graph) and not operation.control_inputs for operation in added):
            self.put(value, dtype, handle, context, key)
            self._seen = len(operations)  # a branch that reads the step would look like one that writes it


def evaluated_once(evaluate, variable, key, only_if_pure=False):
    """`evaluate()`, or the result of an earlier call if that must be the same.

    Args:
        evaluate: Adds operations to the graph and returns a tensor, which depends on the variable's value and on
            nothing else that can change.
        variable: A `tf.Variable`, or a tensor that was just read from one; of any other tensor nothing is merged.
        key: What is evaluated, hashable: calls with equal keys ask for the same number.
        only_if_pure: `evaluate` may do anything: its result is used again only if the operations show that they are
            pure.
    """
    graph = tf.compat.v1.get_default_graph()
    handle = _handle(variable, graph)
    # A graph for a session has no order of its own. Under the user's `tf.control_dependencies` an operation may run
    # after something that is made already, such as a write by Python. What is made inside a control flow context may
    # not be used outside; XLA's is the only context that has neither branch nor loop.
    ordered = graph.building_function and not graph._current_control_dependencies()
    context = graph._get_control_flow_context()
    if handle is None or not ordered or (context and not context.IsXLAContext()):
        return evaluate()
    evaluations = getattr(graph, "_lrops_evaluations", None)
    if evaluations is None:
        # On the graph, since its tensors are of no use to another and must not keep it alive.
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
    # What is evaluated inside uses no earlier result: that may depend on a variable which the new operations hide.
    graph._lrops_evaluations = _Evaluations()
    try:
        result = evaluate()
    finally:
        graph._lrops_evaluations = evaluations
    evaluations.put_if_pure(result, variable.dtype, handle, context, key, graph, first)
    return result


def _handle(variable, graph):
    """The handle of a variable, or of the one that a tensor was read from if nothing can have written it since."""
    try:
        return variable.handle  # of this replica, under a distribution strategy
    except (AttributeError, ValueError):  # a tensor; a variable of several replicas, read outside of them
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


# Also those that TensorFlow names stateless: a StatelessCase may draw random numbers.
_CALLS = {"PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "Case", "StatelessCase"}
_CALLS |= {"While", "StatelessWhile"}


def _is_pure(operation, handles, graph):
    """Whether an operation depends on nothing but its inputs and the variable.

    Args:
        operation: One of the graph.
        handles: The ids of the tensors that are known to be a handle of the variable.
        graph: It knows the functions that the operation calls.
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
    """The names of the functions of a call, a branch or a loop."""
    attributes = operation.node_def.attr.values()
    found = [[one.func] if one.HasField("func") else one.list.func for one in attributes]
    return [function.name for functions in found for function in functions]


def _body(name, operation, handles, graph):
    """The graph of a function that an operation calls, if it is known, and the ids of the handles in it."""
    body = getattr(graph._functions.get(name), "graph", None)
    inputs = body.inputs if body else []
    given = operation.inputs[len(operation.inputs) - len(inputs) :]  # without a condition
    return body, {id(inner) for outer, inner in zip(given, inputs, strict=True) if id(outer) in handles}


def _holds_state(tensor):
    return tensor.dtype in (tf.resource, tf.variant) or tensor.dtype.base_dtype != tensor.dtype


def _may_write(operation):
    """Whether an operation can write a variable."""
    # A variant may be a dataset, whose functions hold variables.
    return operation.type != "ReadVariableOp" and any(
        tensor.dtype in (tf.resource, tf.variant) for tensor in operation.inputs
    )


def _names_what_it_writes(operation):
    """Whether it writes a variable that is among its inputs, and no other."""
    return operation.type.startswith(("Assign", "Resource"))


def _writes_another_dtype(operation, dtype):
    """Whether what it writes is of another dtype: of AssignVariableOp and its like `dtype`, of ResourceApplyAdam `T`.

    That of other operations may belong to something else, such as the numbers that StatefulUniform draws.
    """
    if _names_what_it_writes(operation):
        for name in ("dtype", "T"):
            if any(attribute.name == name for attribute in operation.op_def.attr):
                return operation.get_attr(name) != dtype
    return False


def _writes_another_variable(operation, handle, graph):
    """Whether it writes variables that are known to be others than that of `handle`."""
    if not _names_what_it_writes(operation) or not isinstance(handle, tf.__internal__.EagerTensor):
        return False
    # A captured variable is an input of the graph from its first use on. A variable that is an argument is none yet,
    # and may be any variable when the graph is called again.
    inputs = set(map(id, graph.inputs))
    captured = {id(inner): outer for outer, inner in graph.captures if id(inner) in inputs}
    written = [captured.get(id(tensor)) for tensor in operation.inputs if tensor.dtype == tf.resource]
    if not written or not any(outer is handle for outer in captured.values()):
        return False
    # The text of a handle names the device and the variable; an alias of it has the same.
    return all(isinstance(outer, tf.__internal__.EagerTensor) and str(outer) != str(handle) for outer in written)
