"""The commands of ``taxi``, one file a room."""
