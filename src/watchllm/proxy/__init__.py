"""The request's life, one stage a module: authenticate, directives, lifecycle, upstream, egress, settle."""
