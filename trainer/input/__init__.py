"""The input of the network: shards, shuffled and augmented for training, or in stored order for evaluation."""
