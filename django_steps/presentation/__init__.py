"""What the admin and the commands show of runs and steps: the same words for the same thing, as text or JSON.

Not here: pages (`admin`) and commands (`management`).
"""
