"""What the doors for programs, for people and for providers share: how a request is read, whose it is, and what it may take."""
