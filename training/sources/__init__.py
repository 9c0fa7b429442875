"""Sources of rows: files, folders, databases and hubs."""
