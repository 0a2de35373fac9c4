"""Exports: a checkpoint as other programs read it."""
