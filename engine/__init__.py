"""What happens in a job: one module per stage, the pipeline that orders them, and their artifacts."""
