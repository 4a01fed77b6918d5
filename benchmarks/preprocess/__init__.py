"""The offline build compared with other tools, and with its codec alone."""
