"""The composition root: reads the configuration, picks the adapters and builds processes. Nobody else names one."""
