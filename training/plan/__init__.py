"""Runtime plan: building, checking and timing of variants, and the choice of one."""
