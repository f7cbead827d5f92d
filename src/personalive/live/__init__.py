"""Live sessions without HTTP: worker, streams, queues, sources and sinks."""
