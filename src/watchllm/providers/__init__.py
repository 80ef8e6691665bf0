"""Who answers: dialects, vendors as data, prices."""
