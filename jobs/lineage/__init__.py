"""Where rows and runs come from, and whether they come again."""
