"""`acting=async`: actors in processes of their own step the environments while the learner learns, here or on other machines.

`actor` is what an actor does; it does not know where it runs. `collector` and `pool` are the learner's side, and do not know it.
A `transport` carries messages and weights between them: `processes` by pipes and shared memory, `cluster` by Ray's calls.

TorchRL's `MultiAsyncCollector` is not used, for three reasons. It ends the run when one of its workers dies (its health check
raises, and a worker cannot be started again), where a lost actor is to be replaced. Its workers reset an environment on their own
in the middle of a batch, where a task of the curriculum has to come with the reset and the last info of the episode to come back.
And each worker hands over whole batches of its own, where the replay takes one step of all environments at a time. All three hold
for `RayCollector` too, whose workers are the same collectors: what Ray raises where one is dead ends its iteration. What is taken
over is how weights travel: in one piece, with a version on every step.
"""
