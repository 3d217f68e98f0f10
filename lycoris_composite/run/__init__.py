"""What a run leaves on disk and in its process: whole files, the journal, states, signals, the environment."""
