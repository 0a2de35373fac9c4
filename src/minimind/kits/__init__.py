"""Domain kits: a preset with a `[kit]` table, rows that teach manners, probes that check them."""
