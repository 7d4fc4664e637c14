"""Scores of encoders: features, linear probes, metrics, label efficiency."""
