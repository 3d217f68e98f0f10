"""The embedded trainer: one stage of SD 1.x with LyCORIS, where sd-scripts cannot be had."""
