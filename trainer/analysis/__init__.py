"""Analysis of votes and predictions: metrics, figures, and the pages that contain both."""
