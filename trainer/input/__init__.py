"""What the network is fed: the shards of a dataset, shuffled and augmented for training, in stored order for evaluation."""
