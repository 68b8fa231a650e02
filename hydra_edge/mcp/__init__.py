"""The Model Context Protocol: a person's history and style as tools of an AI application.

``clients`` knows the applications, ``desk`` does what the tools say, ``server`` speaks the
protocol with the official SDK; only the last imports it.
"""
