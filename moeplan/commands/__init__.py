"""The commands, one module each: thin readings of the library that import it only when they run."""
