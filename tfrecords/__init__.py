"""The contract: what one record holds and how a dataset folder looks."""

__version__ = "0.1.0"
