"""Service that runs in the pod: requests, scheduler, engine, tasks and monitoring."""
