"""What people manage: organizations, projects, keys, provider keys, users; publishes the snapshot."""
