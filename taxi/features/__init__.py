"""What a model sees of a trip: features known at pickup, learnt history, lookups of zones and holidays."""
