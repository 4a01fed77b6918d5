"""The trainer's input pipeline compared with other loaders."""
