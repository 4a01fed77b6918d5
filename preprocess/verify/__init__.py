"""Whether a dataset is what it says it is: each shard for itself, the whole, and against its source.

`verify.dataset` is where to begin. It is not imported here: a worker process needs `verify.shard` alone.
"""
