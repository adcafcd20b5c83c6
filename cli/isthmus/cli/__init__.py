"""The face: the `isthmus` command. `main.COMMANDS` names what it can do."""
