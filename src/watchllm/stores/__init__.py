"""Adapters of the ports that other parts own; only `watchllm.compose` names one."""
