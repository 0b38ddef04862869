"""Conversations through a tokenizer's own chat template."""
