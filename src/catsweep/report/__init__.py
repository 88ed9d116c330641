"""What people look at: grids and tables."""
