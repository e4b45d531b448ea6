"""Wire formats; every module registers a protocol. ``vla/serve/README.md`` shows how to add one."""
