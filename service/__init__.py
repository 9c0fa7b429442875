"""What runs in the pod: the bundle contract, the predictor, the scheduler and the BentoML service."""
