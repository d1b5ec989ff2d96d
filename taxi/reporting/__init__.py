"""What people read: tables, plots, HTML pages, the gallery."""
