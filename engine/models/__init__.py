"""Models: a catalogue of what can be trained, and trained models behind one interface."""
