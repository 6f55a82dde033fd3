"""The job service: takes, queues, runs, watches and remembers jobs beside a Dask cluster."""
