"""Recipe: its file, its sections, and which keys a task refuses."""
