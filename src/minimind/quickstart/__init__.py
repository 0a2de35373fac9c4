"""The whole path in minutes on a CPU; `minimind.quickstart.stages` has the stages."""
