"""Checks of a dataset: each shard, the whole, and a comparison with its source.

Start reading at `verify.dataset`. It is not imported here: a worker process needs only `verify.shard`.
"""
