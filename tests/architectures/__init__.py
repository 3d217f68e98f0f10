"""The models that kohya trains besides SD 1.x: each of their trainers, on a tiny random model, from the command line."""
