"""The management web application: one page = one module, one template and one typed context."""
