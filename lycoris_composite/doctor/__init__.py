"""What is there and what a run of a config would refuse, as a table. Changes nothing."""
