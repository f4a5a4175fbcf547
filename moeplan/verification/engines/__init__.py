"""Where runs happen: a module an engine, each with `launch(specs, folder, where, listen)`."""
