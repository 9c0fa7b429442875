"""Quality of answers: metrics with their intervals, calibration, non-inferiority, slices."""
