"""Everything that is settled before a model loads: refusals, the data that will be read, where an earlier run goes on."""
