"""Many jobs at once: wait for all, submit them in slices, and put prompts in for answers."""
