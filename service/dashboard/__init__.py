"""The door for people: pages, templates, static files."""
