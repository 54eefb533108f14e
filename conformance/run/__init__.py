"""A run of the suite: its session, its processes, its JUnit file."""
