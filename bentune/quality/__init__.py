"""Quality of predictions: metrics with intervals, calibration, non-inferiority, slices."""
