"""Order of the stages, the directory of a run, and the changes that make a stage run again."""
