"""The offline job beside other tools, and beside its codec alone."""
