"""A chief, workers and parameter servers: `ParameterServerStrategy`. Every process that runs the graph imports lrops.

Run it once for each task, with TF_CONFIG as TensorFlow documents it. The chief prints each step's rate and ends; the
others serve until they are stopped.
"""

import tensorflow as tf

import lrops  # in the servers as well: the op runs there


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
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if resolver.task_type in ("worker", "ps"):
        serve(resolver)
    lead(resolver)


if __name__ == "__main__":
    main()
