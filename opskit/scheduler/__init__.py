"""Scheduler: runs what is due, by the timetable in the configuration."""
