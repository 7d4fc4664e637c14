"""Pretraining, fine-tuning and the whole training flow."""
