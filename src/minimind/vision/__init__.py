"""Seeing: images opened safely, and frozen encoders that turn them into features.

What learns is in `minimind.model.vision`. Names are imported when they are used: torch and pillow
are not needed to know the names of the encoders.
"""
