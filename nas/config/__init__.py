"""From the command line to plain containers and to objects; the only place besides ``nas.cli`` that knows Hydra."""
