"""The whole daemon on a PostgreSQL of its own: `make postgresql`. Not part of `make test`, which needs no server."""
