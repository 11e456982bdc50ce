"""Measurements of this library beside a PyTorch reference: ``benchmarks/run.py``."""
