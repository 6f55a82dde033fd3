"""The same work done with other libraries, to be measured against; and ours in the form that they are measured in."""
