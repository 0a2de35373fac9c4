"""The strict reader and writer of settings.

Nothing is coerced and nothing is ignored: a key that `minimind.config` doesn't know, or a value of
another type than its field's, is a `ConfigError` that names the file, the line, the key, the value
and the nearest right name.
"""

from minimind.settings.reading import (
    PRESETS,
    load_model_config,
    load_run_config,
    preset_names,
    read_config,
)
from minimind.settings.writing import dump_run_config

__all__ = [
    "PRESETS",
    "dump_run_config",
    "load_model_config",
    "load_run_config",
    "preset_names",
    "read_config",
]
