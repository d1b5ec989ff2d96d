"""Container images: what is installed in them (Containerfile), how they are built and described."""
