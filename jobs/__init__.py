"""What is asked for, and by whom: spec, plan, runner, client and command line."""
