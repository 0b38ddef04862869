"""The sample pool: a seeded generator, its output, and the flaws planted in it."""
