"""One evaluation a step: while a `tf.function` is traced, repeated evaluations of the same variable are merged.

An optimizer with weight decay reads the rate once for each variable, and TensorFlow's graph passes cannot merge the
reads of `iterations`: each of them might see another value. While tracing, the operations between two reads are known,
and `tf.function` runs everything that touches a variable in the order in which it was made. So if no operation made
since an evaluation can write an int64 variable, another evaluation would give the same number. Any operation not known
to be safe discards the cached results; the worst case is the graph that there would be without this file.
"""

import tensorflow as tf


class _Evaluations:
    """The results of one function graph that are still valid."""

    def __init__(self):
        self._seen = 0  # operations of the graph
        self._results = {}

    def look_at_new_operations(self, graph):
        operations = graph.get_operations()
        for operation in operations[self._seen :]:
            if _may_write_int64(operation):
                self._results.clear()
        self._seen = len(operations)

    def get(self, handle, context, key):
        return self._results.get((id(handle), id(context), key), (None,))[0]

    def put(self, result, handle, context, key):
        # The handle and the context are kept, so that no later object gets the id of either.
        self._results[id(handle), id(context), key] = (result, handle, context)


def evaluated_once(evaluate, variable, key):
    """`evaluate()`, or the result of an earlier call if that must be the same.

    Args:
        evaluate: Adds operations to the graph and returns a tensor, which depends on the variable's value and on
            nothing else that can change.
        variable: An int64 `tf.Variable`; or a tensor, whose evaluations are not merged.
        key: What is evaluated, hashable: calls with equal keys ask for the same number.
    """
    graph = tf.compat.v1.get_default_graph()
    try:
        handle = variable.handle  # of this replica, under a distribution strategy
    except (AttributeError, ValueError):  # a tensor; a variable of several replicas, read outside of them
        handle = None
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
    if result is None:
        result = evaluate()
        evaluations.put(result, handle, context, key)
    return result


def _may_write_int64(operation):
    """Whether an operation can write an int64 variable. Its handle may have any name, so the dtype has to tell."""
    # A variant may be a dataset, whose functions hold variables.
    if operation.type == "ReadVariableOp" or all(
        tensor.dtype not in (tf.resource, tf.variant) for tensor in operation.inputs
    ):
        return False
    # AssignVariableOp and its like have a `dtype`, ResourceApplyAdam and its like a `T`: the variable's. That of others
    # may belong to something else, such as the numbers that StatefulUniform draws.
    if operation.type.startswith(("Assign", "Resource")):
        for name in ("dtype", "T"):
            if any(attribute.name == name for attribute in operation.op_def.attr):
                return operation.get_attr(name) == tf.int64
    return True
