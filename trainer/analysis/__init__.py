"""Looking at predictions: metrics, figures, and the report that holds both."""
