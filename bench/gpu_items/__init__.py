"""One module for each item of `bench/gpu.py`."""
