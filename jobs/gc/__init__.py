"""What lies under an artifacts root that nobody needs: found and removed, beside runs that say what they need."""
