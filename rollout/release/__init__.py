"""Release to a cluster: the gate, the change, the watch, and the rollback."""
