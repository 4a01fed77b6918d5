"""Damaged and hostile inputs, made from real ones: `python -m tests.fuzz --minutes 60`, and a little of it in each test run."""
