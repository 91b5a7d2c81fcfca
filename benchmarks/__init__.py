"""Side by side with Postfix, in one run, on one machine, with the same clients."""
