"""What a user writes, and how it is run inside the process."""
