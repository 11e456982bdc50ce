"""Commands: flags to a configuration to one call of the library."""
