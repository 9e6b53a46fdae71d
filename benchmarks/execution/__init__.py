"""Plan a call, carry out its runs in processes of their own, and keep their records."""
