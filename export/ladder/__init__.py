"""What each step of training a base pays, measured on training users left out in turn.

From interpretable features alone over learned maps, a prior that knows the profile, and heads
trained jointly, to an encoder that is trained too. A measurement: nothing here is shipped.
"""
