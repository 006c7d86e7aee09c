"""Everything that lrops keeps on the graph of a function while it is traced: its schedules, and what is merged.

Why merge: in Keras 3, an optimizer with weight decay reads the rate N + 1 times a step for N variables. TensorFlow does
not merge these reads, because the optimizer's `iterations` could change between two of them.

The rule: the first evaluation is cached for its graph. A later one with the same key gets the cached tensor, unless an
operation that was added in between may write the variable. This is safe because a `tf.function` runs all operations on
a variable in the order in which they were added. An operation that is not known to be safe drops the cached result, so
a doubt costs one more evaluation and never a wrong rate.

An op of lrops depends on its step only. A schedule inside a `LinearWarmup` may depend on more, so it is cached only if
the operations that it added are pure: none is stateful, takes a resource, a variant or a reference, or has a control
input. Reading the step is allowed, and so are calls, branches and loops whose functions are pure.
"""

import inspect
import itertools
from typing import Any, NamedTuple

import tensorflow as tf

from lrops._arguments import unwrap_variable


class _Result(NamedTuple):
    """A cached evaluation, and the handle and the dtype of the variable that it depends on."""

    value: Any
    handle: Any
    dtype: Any


class _Trace:
    """What lrops keeps on one graph. A global table would keep the graph alive."""

    def __init__(self):
        self.schedules = set()  # that were evaluated in this graph
        self.results = {}  # the cached evaluations, by key
        self.seen = 0  # how many operations of the graph `drop_stale_results` has looked at

    def drop_stale_results(self, graph):
        """Drops each result whose variable the operations added since the last call may write."""
        operations = graph.get_operations()
        for operation in operations[self.seen :] if self.results else ():
            if _may_write(operation):
                self.results = {
                    key: result
                    for key, result in self.results.items()
                    if _writes_another_dtype(operation, result.dtype)
                    or _writes_another_variable(operation, result.handle, graph)
                }
        self.seen = len(operations)


def _trace_of(graph):
    trace = getattr(graph, "_lrops_trace", None)
    if trace is None:
        trace = graph._lrops_trace = _Trace()
    return trace


def note(schedule):
    """Notes, while a function is traced, that `schedule` is evaluated in it."""
    if not tf.executing_eagerly():
        _trace_of(tf.compat.v1.get_default_graph()).schedules.add(schedule)


def compiled_graphs(function):
    """The graphs that were traced of a `tf.function`, or of the `train_function` of a Keras model."""
    functions = [function]
    if inspect.isfunction(function):  # Keras 3 wraps the tf.function in a closure
        functions += inspect.getclosurevars(function).nonlocals.values()
    return [one.graph for each in functions for one in getattr(each, "_list_all_concrete_functions", list)()]


def schedules_in(graphs):
    """The schedules of lrops that are known to be compiled into these graphs and the functions that they call.

    A schedule that is inside a `LinearWarmup` of the set is left out, and one that is missing may still be compiled in.
    """
    graphs, found = list(graphs), set()
    for graph in graphs:  # grows by the functions that each of them calls
        found |= _trace_of(graph).schedules
        called = (getattr(one, "graph", None) for one in getattr(graph, "_functions", {}).values())
        graphs += [one for one in called if one is not None and one not in graphs]
    return found - {getattr(schedule, "schedule", None) for schedule in found}


def is_written_in(graphs, variable):
    """Whether one of these graphs writes a variable on any replica."""
    handles = {id(one.handle) for one in getattr(variable, "values", [variable])}
    return any(
        _is_written_by(operation, inner)
        for graph in graphs
        for outer, inner in graph.captures
        if id(outer) in handles
        for operation in inner.consumers()
    )


def _is_written_by(operation, handle):
    try:  # a call of a function
        read_only = operation.get_attr("_read_only_resource_inputs")
    except ValueError:
        return operation.type != "ReadVariableOp"
    return any(one is handle and number not in read_only for number, one in enumerate(operation.inputs))


def evaluated_once(evaluate, variable, key, only_if_pure=False):
    """`evaluate()`, or the cached result of an earlier call that must be equal.

    Args:
        evaluate: A function that adds operations to the graph and returns a tensor. The tensor may depend on the
            variable's value and on nothing else that can change.
        variable: A variable, or a tensor that was just read from one and perhaps cast. With anything else, nothing is
            merged.
        key: A hashable name of what is evaluated. Calls with equal keys ask for the same number.
        only_if_pure: `evaluate` may do anything. Its result is cached only if the operations that it added are pure.
    """
    graph = tf.compat.v1.get_default_graph()
    context = graph._get_control_flow_context()
    variable = unwrap_variable(variable) if hasattr(variable, "dtype") else variable
    handle, dtype = _variable_behind(variable, graph)
    # These cannot be merged: a graph without automatic control dependencies, which runs operations in any order; an
    # evaluation under the user's `tf.control_dependencies`, which waits for operations that exist already, such as a
    # `tf.py_function` that writes the variable; and a tensor from a branch or a loop, which cannot be used outside of
    # it. XLA's context is the only one that is neither.
    ordered = graph.building_function and graph._add_control_dependencies and not graph._current_control_dependencies()
    if handle is None or not ordered or (context and not context.IsXLAContext()):
        return evaluate()
    trace = _trace_of(graph)
    trace.drop_stale_results(graph)
    # A schedule of somebody else may ask which replica it runs on. A distributed variable has another handle in each.
    replicated = only_if_pure and not isinstance(variable, tf.distribute.DistributedValues)
    replica = tf.distribute.get_replica_context() if replicated else None
    # The key keeps what it names alive, so that no other object gets the same identity.
    key = (key, handle.ref(), variable.dtype, context, replica)
    if key in trace.results:
        return trace.results[key].value
    value, pure = _evaluated_and_pure(evaluate, trace, graph, handle) if only_if_pure else (evaluate(), True)
    if pure:
        trace.results[key] = _Result(value, handle, dtype)
    return value


def _evaluated_and_pure(evaluate, trace, graph, handle):
    """`evaluate()`, and whether all operations that it added are pure."""
    before, results = len(graph.get_operations()), trace.results
    # Nothing is cached inside: a cached tensor would hide which variable the new operations depend on.
    trace.results = {}
    try:
        value = evaluate()
    finally:
        trace.results, trace.seen = results, before
    operations = graph.get_operations()
    handles = {id(inner) for outer, inner in graph.captures if outer is handle} | {id(handle)}
    pure = all(_is_pure(one, handles, graph) and not one.control_inputs for one in operations[before:])
    if pure:
        trace.seen = len(operations)  # `_may_write` would take a branch that reads the step for a write
    return value, pure


def _variable_behind(value, graph):
    """The handle and the dtype of a variable; of a tensor, those of the variable that it was just read from.

    Both are None if there is no such variable, if an operation may have written it since, or if TensorFlow may read it
    from a cache (`cached_read_value`, under a ParameterServerStrategy).
    """
    try:
        handle = value.handle  # under a distribution strategy, this replica's handle
        return (None, None) if hasattr(value, "cached_read_value") else (handle, value.dtype)
    except (AttributeError, ValueError):  # a tensor or an array; or a replicated variable, outside of the replicas
        read = None if isinstance(value, tf.Variable) else getattr(value, "op", None)
    if getattr(read, "type", None) == "Cast":  # a legacy optimizer of tf_keras casts its count
        read = read.inputs[0].op
    if (
        getattr(read, "type", None) != "ReadVariableOp"
        or read.graph is not graph
        or read.control_inputs
        or read._get_control_flow_context() is not graph._get_control_flow_context()
    ):
        return None, None
    handle, dtype = read.inputs[0], read.outputs[0].dtype
    since = itertools.takewhile(lambda operation: operation is not read, reversed(graph.get_operations()))
    written = any(_may_write(one) and not _writes_another_dtype(one, dtype) for one in since)
    return (None, None) if written else (handle, dtype)


# TensorFlow's name "stateless" proves nothing: a StatelessCase may draw random numbers.
_CALLS = {"PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "Case", "StatelessCase"}
_CALLS |= {"While", "StatelessWhile"}


def _is_pure(operation, handles, graph):
    """Whether an operation of a graph depends only on its inputs and on the variable whose handles have these ids."""
    state = [tensor for tensor in operation.inputs if _holds_state(tensor) or tensor.dtype.base_dtype != tensor.dtype]
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
    # A variant may be a dataset, and a dataset's functions may hold variables.
    return tensor.dtype in (tf.resource, tf.variant)


def _may_write(operation):
    """Whether an operation can write a variable."""
    return operation.type != "ReadVariableOp" and any(map(_holds_state, operation.inputs))


def _names_what_it_writes(operation):
    """Whether an operation can write only the variables among its inputs."""
    return operation.type.startswith(("Assign", "Resource"))


def _writes_another_dtype(operation, dtype):
    """Whether an operation writes variables of another dtype only.

    The dtype is an attribute: `dtype` of AssignVariableOp and the like, `T` of ResourceApplyAdam and the like. In other
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
    known = all(isinstance(outer, tf.__internal__.EagerTensor) for outer in written)
    try:
        return known and all(str(outer) != str(handle) for outer in written)
    except Exception:  # noqa: BLE001  (a packed handle, of several variables, has no text)
        return False
