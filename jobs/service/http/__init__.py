"""The HTTP API of the service, version 1; its documents are `treadle.jobs.service.views`."""
