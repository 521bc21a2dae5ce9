"""The guarded way out: everything that is dialled because a person or a provider named it."""
