"""Memory and CPU time of processes, as the system reports them."""
