"""The tags of the admin's templates. Not here: what they show (`admin`)."""
