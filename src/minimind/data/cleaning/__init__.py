"""From raw Chinese text to clean shards: rules, duplicates, executors."""
