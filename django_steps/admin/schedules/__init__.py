"""The pages of the schedules: the list, the page of one, its form with a preview, pausing and running now.

Not here: when a schedule fires (`core.schedules`), and how one reads (`presentation.schedules`, `presentation.cron`).
"""
