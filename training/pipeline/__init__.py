"""Order of the stages, the directory of a run, and what makes a stage run again."""
