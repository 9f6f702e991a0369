"""The commands, one module each, as Django finds them. Not here: what they share, which is in `management`."""
