"""Commands: each converts flags to a configuration and calls the library once."""
