"""Pure maths: arrays in, arrays out. No Ray, files, configuration, clock or global state."""
