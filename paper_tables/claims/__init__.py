"""Published claims, the numbers they cite, and the judges that compare them with records."""
