"""`acting=async`: actors in processes of their own step the environments while the learner learns.

TorchRL's `MultiAsyncCollector` is not used, for three reasons. It ends the run when one of its workers dies (its health check
raises, and a worker cannot be started again), where a lost actor is to be replaced. Its workers reset an environment on their own
in the middle of a batch, where a task of the curriculum has to come with the reset and the last info of the episode to come back.
And each worker hands over whole batches of its own, where the replay takes one step of all environments at a time. Its collectors
for Ray share the last two. What is taken over is how weights travel: through shared memory, with a version on every step.
"""
