"""One evaluation for all that a function asks of the same variable, for as long as nothing can have written to it.

Called by lrops/ops.py, while a `tf.function` is traced. It must not know what is evaluated.

An optimizer with weight decay reads the rate once for each variable, and TensorFlow's graph passes cannot merge the
reads of `iterations`: any of them might see another value. Here, when they are made, the operations between them are
known: `tf.function` runs what touches a variable in the order in which it was made, so where no operation made since an
evaluation can write an int64 variable, another evaluation would give the same number. What is not known to be harmless
ends that, so the worst case is the graph that there would be without this file.
"""

import tensorflow as tf


class _Evaluations:
    """Those of one function graph that still hold."""

    def __init__(self):
        self._seen = 0  # operations of the graph
        self._results = {}

    def look_at_new_operations(self, graph):
        operations = graph.get_operations()
        for operation in operations[self._seen :]:
            if _may_write_int64(operation):
                self._results.clear()
        self._seen = len(operations)

    def get(self, *key):
        held = self._results.get(tuple(map(id, key)))
        return None if held is None else held[0]

    def put(self, result, *key):
        self._results[tuple(map(id, key))] = (result, key)  # the key's objects stay, so that no other takes their id


def evaluated_once(evaluate, variable, attributes):
    """`evaluate(variable, **attributes)`, or the result of an earlier call if that must be the same.

    Args:
        evaluate: What adds operations to the graph and returns a tensor: a function of the variable's value and of
            the attributes alone.
        variable: An int64 `tf.Variable`, or a tensor, whose evaluations stay apart.
        attributes: Keyword arguments, a dict that stays as it is and is the same object for the same evaluation.
    """
    graph = tf.compat.v1.get_default_graph()
    try:
        handle = variable.handle  # of this replica, under a distribution strategy
    except (AttributeError, ValueError):  # a tensor; a variable of several replicas, read outside of them
        handle = None
    # A graph for a session has no order of its own; one that the user gives, by `tf.control_dependencies`, may be an
    # order after something that is made already: a write by Python, say. What is made inside a control flow context may
    # not be used outside; XLA's is the only one that has neither branch nor loop.
    ordered = graph.building_function and not graph._current_control_dependencies()
    context = graph._get_control_flow_context()
    if handle is None or not ordered or (context and not context.IsXLAContext()):
        return evaluate(variable, **attributes)
    evaluations = getattr(graph, "_lrops_evaluations", None)
    if evaluations is None:
        # On the graph, since its tensors are of no use to another and must not keep it alive.
        evaluations = graph._lrops_evaluations = _Evaluations()
    evaluations.look_at_new_operations(graph)
    result = evaluations.get(handle, attributes, context)
    if result is None:
        result = evaluate(variable, **attributes)
        evaluations.put(result, handle, attributes, context)
    return result


def _may_write_int64(operation):
    """Whether an operation can write an int64 variable. Its handle may have any name, so the dtype has to tell."""
    # A variant may be a dataset, whose functions hold variables.
    if operation.type == "ReadVariableOp" or all(
        tensor.dtype not in (tf.resource, tf.variant) for tensor in operation.inputs
    ):
        return False
    # AssignVariableOp and its like have a `dtype`, ResourceApplyAdam and its like a `T`: the variable's. That of others
    # may be of something else, as of the numbers that StatefulUniform draws.
    if operation.type.startswith(("Assign", "Resource")):
        for name in ("dtype", "T"):
            if any(attribute.name == name for attribute in operation.op_def.attr):
                return operation.get_attr(name) == tf.int64
    return True
