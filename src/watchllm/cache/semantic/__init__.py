"""The semantic cache: whether the answer to one prompt may be given to another that is worded differently."""
