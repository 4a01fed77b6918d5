"""The trainer's input pipeline beside other loaders."""
