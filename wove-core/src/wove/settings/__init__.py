"""What a configuration says, and where, and what several places say together. `wove.runtime` is the public door."""
