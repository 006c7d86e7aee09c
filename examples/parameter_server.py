"""Trains with `ParameterServerStrategy`: a chief, workers and parameter servers. Each of them imports lrops.

Start it for each task, with the variable TF_CONFIG; docs/distributed.md shows how. The chief prints the rate of each
step and ends. The others serve until you stop them.
"""

import argparse
import os
import sys

import tensorflow as tf

import lrops  # in the servers too, because the op runs there


def serve(resolver):
    """What a worker or a parameter server does."""
    server = tf.distribute.Server(
        resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id, protocol="grpc", start=True
    )
    server.join()


def lead(resolver):
    """What the chief does."""
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        schedule = lrops.WarmupCosineDecay(0.01, warmup_steps=8, total_steps=40)
        iterations = tf.Variable(0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
        weight = tf.Variable(0.0)

    @tf.function
    def step():
        def replica():
            count = iterations.read_value()
            rate = schedule(iterations)
            weight.assign_sub(rate)
            iterations.assign_add(1)
            return count, rate

        return strategy.run(replica)

    for _ in range(50):  # one at a time, so that no two workers take the same step
        count, rate = coordinator.schedule(step).fetch()
        print(count, float(rate), flush=True)
    print("steps", int(iterations.numpy()))


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if "TF_CONFIG" not in os.environ:
        sys.exit("TF_CONFIG is not set. It must name all tasks and this one: docs/distributed.md shows how.")
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if resolver.task_type in ("worker", "ps"):
        serve(resolver)
    lead(resolver)


if __name__ == "__main__":
    main()
