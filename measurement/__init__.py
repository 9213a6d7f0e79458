"""What makes numbers of measurements, for the load test and the commands of the pipeline."""
