"""Intervals and tests: the bootstrap, areas under the ROC curve, calibration, paired proportions."""
