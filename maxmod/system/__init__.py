"""The operating system, with care: files that strangers made, locks that a fork leaves free."""
