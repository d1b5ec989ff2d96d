"""The publisher's months: fetched, read in one schema, split into kept trips and quarantine, accepted or refused."""
