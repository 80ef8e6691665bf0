"""The journal of usage: append-only files that proxies write and the recorder brings into the database."""
