"""Files, read and written: whole or not at all, locked, with digests, and with errors that name the file and the place."""
