"""The prediction service over HTTP: app, middleware, workers, and the follower that swaps versions."""
